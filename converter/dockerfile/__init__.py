"""Dockerfiles: read, understood, translated and built, without Docker."""
