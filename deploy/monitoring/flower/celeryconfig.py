"""The queues for Flower: the prefix of their keys in Redis, and their names."""

from kombu import Queue

broker_transport_options = {"global_keyprefix": "piqueue:"}
task_queues = [Queue("interactive"), Queue("bulk")]
task_default_queue = "bulk"
