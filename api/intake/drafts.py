"""Drafts: jobs that take items over several requests before they are submitted."""

from api.intake.admission import check_capacity, check_memory
from api.intake.items import ItemReceiver
from api.intake.job_builder import JobBuilder
from api.intake.submission import Submission
from api.intake.uploads import Uploads
from api.schemas import JobOptions
from api.services import Services
from worker.jobs.errors import JobNotDraft, JobRefused
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob
from worker.jobs.record import Job, JobStatus, new_job_id

WRITE_ITEMS = 500


def open_draft(services: Services, owner: str, options: JobOptions) -> Job:
    """Create a draft without items."""
    draft = NewJob(
        id=new_job_id(),
        owner=owner,
        model=services.catalog.resolve(options.model),
        ttl_s=services.settings.draft_ttl_s,
        name=options.name,
        metadata=options.metadata,
        webhook_url=options.webhook_url,
        options=options.given,
    )
    services.store.open_draft(draft)
    return services.store.job(draft.id)


def submit_draft(services: Services, draft: Job) -> Job:
    """Submit a draft as a job.

    Raises:
        PiqueueError: it is no draft, or the job was refused; it then remains a draft that takes
            no more items.
    """
    if draft.counts.total == 0:
        raise JobRefused("the draft has no items: add some before you submit it")
    services.store.close_draft(draft.id)
    # The model version of the time when the draft was created, even if another is current now.
    model = f"{draft.model.name}@{draft.model.version}"
    options = JobOptions.model_validate({**services.store.options(draft.id), "model": model})
    with JobBuilder(services, draft.owner, options, draft_id=draft.id) as builder:
        for specs in services.store.draft_items(draft.id, WRITE_ITEMS):
            for spec in specs:
                builder.add(spec)
        return builder.finish()


def add_to_draft(services: Services, draft: Job, submission: Submission) -> Job:
    """Add items to a draft; return it with its new count.

    An item whose id the draft has already is skipped, so a request may be sent again. Items that
    came before an invalid one are kept.

    Raises:
        PiqueueError: the draft takes no more items, or some are invalid.
    """
    check_capacity(services, draft.owner, draft.counts.total + 1)
    if draft.status is not JobStatus.DRAFT:
        raise JobNotDraft(f"{draft.id} is already submitted: it takes no more items")
    writer = _DraftWriter(services, draft)
    submission.add_items_to(writer)
    return writer.finish()


class _DraftWriter(ItemReceiver):
    """Adds the items of one request to a draft, uploads before the items they belong to."""

    def __init__(self, services: Services, draft: Job) -> None:
        super().__init__(services.settings)
        self._services = services
        self._draft = draft
        self._pending: list[ItemSpec] = []
        self._uploads = Uploads(services.blobs, draft.id, services.settings.draft_ttl_s)

    def _accept(self, spec: ItemSpec, payload: bytes | None) -> None:
        if payload is not None:
            check_memory(self._services.load)
            self._uploads.add(spec.id, payload)
        self._pending.append(spec)
        if len(self._pending) == WRITE_ITEMS:
            self._write()

    def finish(self) -> Job:
        """Return the draft with its new items; raises ItemsRefused if some were invalid."""
        if self._pending:
            self._write()
        self.problems.check()
        return self._services.store.job(self._draft.id)

    def _write(self) -> None:
        self._uploads.write()
        self._services.store.add(self._draft.id, self._pending, self._settings.max_items)
        self._pending = []
