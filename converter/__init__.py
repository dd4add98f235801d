"""docker2nspawn: Docker images, containers and archives become systemd-nspawn machines."""
