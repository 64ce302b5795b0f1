"""Settings from the environment; an invalid one stops the start with its name."""

from ipaddress import IPv4Network

import pytest

from scripts.docs import documents
from worker.jobs.errors import SettingsInvalid
from worker.jobs.settings import load_settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIQUEUE_CHUNK_ITEMS", "7")
    monkeypatch.setenv("PIQUEUE_FETCH_ALLOW_NETWORKS", "10.0.0.0/8, 127.0.0.1/32")
    settings = load_settings()
    assert settings.chunk_items == 7
    assert settings.fetch_allow_networks == (
        IPv4Network("10.0.0.0/8"),
        IPv4Network("127.0.0.1/32"),
    )


def test_the_default_memory_for_models_grows_with_the_threads() -> None:
    assert load_settings(threads=2).models_bytes == 500_000_000
    assert load_settings(threads=64).models_bytes == 16_000_000_000
    assert load_settings(threads=64, models_memory_bytes=1_000_000).models_bytes == 1_000_000


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PIQUEUE_CHUNK_ITEM", "7", "PIQUEUE_CHUNK_ITEM: did you mean PIQUEUE_CHUNK_ITEMS?"),
        ("PIQUEUE_API_KEYS", "pq_1", "PIQUEUE_API_KEYS: did you mean PIQUEUE_API_KEY?"),
        ("PIQUEUE_ZZQ", "7", "PIQUEUE_ZZQ: correct or unset it; docs/settings.md lists all$"),
        (
            "PIQUEUE_CHUNK_ITEMS",
            "many",
            "^PIQUEUE_CHUNK_ITEMS: must be a whole number$",
        ),
        ("PIQUEUE_LOG_JSON", "maybe", "^PIQUEUE_LOG_JSON: must be true or false$"),
        (
            "PIQUEUE_WEBHOOK_RETRY_S",
            "5,b",
            "^PIQUEUE_WEBHOOK_RETRY_S: must be a number$",
        ),
        ("PIQUEUE_S3_KMS_KEY_ID", "1", "^PIQUEUE_S3_KMS_KEY_ID: set PIQUEUE_S3_ENCRYPTION"),
        ("PIQUEUE_MODEL_URL", "https://a.example/1.zip", "^set PIQUEUE_MODEL_URL and"),
        ("PIQUEUE_CHUNK_ITEMS", "0", "PIQUEUE_CHUNK_ITEMS: .*greater than or equal to 1"),
        (
            "PIQUEUE_ROOT_PATH",
            "/pq/",
            "PIQUEUE_ROOT_PATH: .*must be like /piqueue, without a slash",
        ),
        ("PIQUEUE_ROOT_PATH", "//evil.example", "PIQUEUE_ROOT_PATH: .*must be like /piqueue"),
        ("PIQUEUE_TRUSTED_PROXIES", "balancer", "PIQUEUE_TRUSTED_PROXIES: .*IPv4 network"),
        ("PIQUEUE_CORS_ORIGINS", "*", "PIQUEUE_CORS_ORIGINS: .*must be like https://app.example"),
        ("PIQUEUE_CORS_ORIGINS", "https://a.example/", "PIQUEUE_CORS_ORIGINS: .*must be like"),
        ("PIQUEUE_REDIS_URL", "http://h", "PIQUEUE_REDIS_URL: .*must begin with redis://"),
        ("PIQUEUE_ENGINE", "torch", "PIQUEUE_ENGINE: .*litert"),
        ("PIQUEUE_FETCH_ALLOW_NETWORKS", "10.0.0.1/8", "PIQUEUE_FETCH_ALLOW_NETWORKS: .*IPv4"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=says):
        load_settings()


def test_an_invalid_url_is_not_repeated_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", "http://user:secret@host")
    monkeypatch.setenv("PIQUEUE_S3_ENDPOINT_URL", "https://user:secret@host")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings()
    assert "PIQUEUE_S3_ENDPOINT_URL: must be like" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_settings_in_the_documents_are_up_to_date() -> None:
    for path, text in documents().items():
        assert path.read_text() == text, "run python -m scripts.docs"
