"""The wake-up: a message for Celery that carries nothing and makes a worker claim chunks."""

import base64
import json

# The task of a worker that claims what waits, and its queue; its list has piqueue: before it.
WORK = "piqueue.work"
QUEUE = "wake-ups"


def wake_up(name: str = "{id}") -> str:
    """Write the wake-up of this name as kombu stores it in the list of its queue.

    It is what `send_task` of Celery sends, less the headers that have their default. A step of the
    ledger sends it, so that work and wake-up take one round trip and no connection of their own.
    """
    body = json.dumps([[], {}, {}])
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": WORK, "id": name, "root_id": name},
        "properties": {
            "correlation_id": name,
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_tag": name,
        },
    }
    return json.dumps(message, separators=(",", ":"))
