"""The clock process: devices, CAP_SYS_TIME only to steer, no network."""
