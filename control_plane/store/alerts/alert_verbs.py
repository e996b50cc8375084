"""The verbs that change settings of alerts, as `transactions` has the others."""

from control_plane.store.transaction import Transaction, Writer
from control_plane.types.alerts.alert_setting import AlertSetting, Threshold, Webhook


def put_setting(tx: Transaction, setting: AlertSetting) -> AlertSetting:
    old = tx.alert_setting(setting.key)
    new = setting.after(old) if isinstance(setting, Webhook) else setting
    if isinstance(new, Threshold) and new.says_nothing:
        if old is not None:
            tx.drop_alert_setting(new.key)
    elif new != old:
        tx.put_alert_setting(new)
    return new


def drop_settings(tx: Transaction, keys: tuple[str, ...]) -> bool:
    there = [key for key in keys if tx.alert_setting(key) is not None]
    for key in there:
        tx.drop_alert_setting(key)
    return bool(there)


class AlertSettings:
    """The verbs as methods, each one transaction. They raise RegistryUnavailable."""

    def __init__(self, registry: Writer) -> None:
        self._registry = registry

    async def put(self, setting: AlertSetting) -> AlertSetting:
        """Adds or replaces a setting; a threshold that says nothing goes. Returns what holds."""
        return await self._registry.write(lambda tx: put_setting(tx, setting))

    async def drop(self, *keys: str) -> bool:
        """Removes settings. Returns whether there was one."""
        return await self._registry.write(lambda tx: drop_settings(tx, keys))
