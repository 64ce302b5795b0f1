"""The fixtures that tests share."""

import pytest
from redis import Redis


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_begins_with_an_empty_redis(redis_url: str, turn: int) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.keys() == []
        client.set("left by", turn)
