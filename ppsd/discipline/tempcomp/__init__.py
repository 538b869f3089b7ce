"""The crystal's temperature: what it explains of the frequency, once forecasts prove it. ``compensation`` is the way in. Pure."""
