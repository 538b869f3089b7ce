"""Bytes of receivers and of gpsd to values: framing, NMEA, UBX, labels. Pure."""
