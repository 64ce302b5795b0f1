"""The Celery app with which a worker receives wake-ups; the ledger sends them."""

from celery import Celery
from kombu import Queue as KombuQueue

from worker.jobs.ledger.connection import sentinel_options
from worker.jobs.redis_url import RedisAddress
from worker.jobs.settings import Settings
from worker.jobs.wake_up import QUEUE


def make_celery(settings: Settings) -> Celery:
    """Configure Celery without results, events and priorities, and with timeouts on Redis."""
    address = RedisAddress.parse(settings.redis_url)
    broker = ";".join(address.broker_urls())
    celery = Celery("piqueue", broker=broker, set_as_current=False)
    celery.conf.update(
        # kombu verifies no certificate unless it is told to.
        broker_use_ssl=dict(address.tls),
        # Recovery replaces a lost wake-up, so none is acknowledged.
        task_queues=[KombuQueue(QUEUE, no_ack=True)],
        task_default_queue=QUEUE,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
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
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "global_keyprefix": "piqueue:",
            "client_name": "piqueue-worker",
            # Of Sentinel alone.
            "master_name": address.service,
            "sentinel_kwargs": sentinel_options(address),
        },
    )
    return celery
