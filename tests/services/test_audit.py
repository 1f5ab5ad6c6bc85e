"""What the audit leaves in the trail; what it finds and repairs is tested where the outside service is."""

from facescreen.config import Settings
from facescreen.domain.trail import Action
from facescreen.factory import open_services
from tests.painted import PaintedBackend
from tests.services.test_retention import events


async def test_repairs_have_their_event_though_the_audit_is_never_finished(settings: Settings) -> None:
    left = settings.processed_images_output_dir / "2026-01-01" / f"{'0' * 32}.jpg"
    left.parent.mkdir(parents=True)
    left.touch()
    async with open_services(settings, PaintedBackend()) as services:
        async for _ in services.audit.audit(fix=False):
            assert left.exists()
        assert events(services, Action.AUDIT_FIX) == []
        async for finding in services.audit.audit(fix=True):
            assert finding.repaired
            assert not left.exists()
            assert len(events(services, Action.AUDIT_FIX)) == 1
            break
