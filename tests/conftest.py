"""For all tests: what a property says must not depend on how fast the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile("refclock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("refclock")
