"""How long hostile files keep the decoder busy.

    python -m bench.refusals

Prints how fast a PNG of a gigapixel in 120 KB is refused, and which of the crafted files of ``tests/images/crafted.py``
take longest to be decoded or refused, in milliseconds, with the limits that the service has by default.
"""

import statistics
import time
import warnings

from facescreen.config import Settings
from facescreen.errors import InputError
from facescreen.images.decode import decode
from tests.images.crafted import crafted, gigapixel

MAX_PIXELS: int = Settings.model_fields["max_image_pixels"].default
ROUNDS = 100
SHOWN = 8


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
    times = sorted(timed(gigapixel())[0] for _ in range(ROUNDS))
    print(
        f"a gigapixel in {len(gigapixel()):,} bytes: {statistics.median(times):.3f} ms, at most {times[-1]:.3f} ms "
        f"of {ROUNDS} times; {timed(gigapixel())[1]}"
    )
    slowest = sorted(((*timed(data), name) for name, data in crafted().items()), reverse=True)
    print(f"{len(slowest)} crafted files; the slowest:")
    for milliseconds, outcome, name in slowest[:SHOWN]:
        print(f"{milliseconds:8.1f} ms  {name}: {outcome}")


def timed(data: bytes) -> tuple[float, str]:
    """Milliseconds, and the code of the refusal."""
    began = time.perf_counter()
    try:
        decode(data, max_pixels=MAX_PIXELS)
        outcome = "decoded"
    except InputError as error:
        outcome = error.code
    return (time.perf_counter() - began) * 1000, outcome


if __name__ == "__main__":
    main()
