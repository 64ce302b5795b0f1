"""The queue for Flower: the prefix of its key in Redis, and its name."""

from kombu import Queue

broker_transport_options = {"global_keyprefix": "piqueue:"}
task_queues = [Queue("wake-ups")]
task_default_queue = "wake-ups"
