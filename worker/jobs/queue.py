"""Notifications: Celery messages that carry a job id and a chunk index, and nothing else."""

from collections.abc import Iterable

import structlog
from celery import Celery
from kombu import Queue as KombuQueue
from kombu.exceptions import OperationalError

from worker.jobs.ledger.connection import sentinel_options
from worker.jobs.record import Lane
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings

CLASSIFY_CHUNK = "piqueue.classify_chunk"
log = structlog.get_logger()


def make_celery(settings: Settings) -> Celery:
    """Configure Celery without results, events and priorities, and with timeouts on Redis."""
    address = RedisAddress.parse(settings.redis_url)
    broker = ";".join(address.broker_urls())
    celery = Celery("piqueue", broker=broker, set_as_current=False)
    celery.conf.update(
        # kombu verifies no certificate unless it is told to.
        broker_use_ssl=dict(address.tls),
        task_queues=[KombuQueue(lane) for lane in Lane],
        task_default_queue=Lane.BULK,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=0,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Retry while Redis is full, as while it does not answer.
        broker_channel_error_retry=True,
        broker_pool_acquire_timeout=5,
        visibility_timeout=1800,
        broker_transport_options={
            "visibility_timeout": 1800,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "unacked_restore_interval": 15,
            "unacked_restore_throttle": 1,
            "global_keyprefix": "piqueue:",
            "client_name": "piqueue-worker",
            # Of Sentinel alone.
            "master_name": address.service,
            "sentinel_kwargs": sentinel_options(address),
        },
    )
    return celery


class Notifier:
    """Sends one message for each chunk to the queue of its lane."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def notify(self, job_id: str, chunk_indexes: Iterable[int], lane: Lane) -> None:
        """Notify the workers of chunks; recovery sends again what cannot be sent now."""
        for chunk_index in chunk_indexes:
            try:
                self._celery.send_task(
                    CLASSIFY_CHUNK,
                    (job_id, chunk_index),
                    queue=lane,
                    retry_policy={"max_retries": 1, "interval_start": 0.1},
                )
            except OperationalError as error:
                log.warning(
                    "notify_failed", job_id=job_id, chunk_index=chunk_index, reason=str(error)
                )
                return
