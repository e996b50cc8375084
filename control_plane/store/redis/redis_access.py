"""What Redis is shown beside its address, and how it is known, by the settings."""

from dataclasses import dataclass

from control_plane.settings import Settings


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """Empty: none. `authority` is a PEM file, and `certificate` with `key` the own one, for TLS.
    Its repr tells no password.
    """

    user: str = ""
    password: str = ""
    sentinel_password: str = ""
    authority: str = ""
    certificate: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"RedisAccess({self.user!r})"


def access_of(settings: Settings) -> RedisAccess:
    """Raises OSError if a file can't be read, ValueError for one without the other."""
    if (settings.redis_cert is None) != (settings.redis_key is None):
        raise ValueError("a certificate and its key go together: set redis_cert and redis_key")
    password = settings.redis_password.get_secret_value()
    if settings.redis_password_file is not None:
        password = settings.redis_password_file.read_text(encoding="utf-8").strip()
    files = (settings.redis_ca, settings.redis_cert, settings.redis_key)
    for file in files:
        if file is not None:
            file.stat()
    return RedisAccess(
        settings.redis_user,
        password,
        settings.redis_sentinel_password.get_secret_value(),
        *(str(file or "") for file in files),
    )
