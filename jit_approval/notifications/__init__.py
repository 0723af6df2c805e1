"""Telling people. Messages carry facts and a link; they never carry permission."""
