
# The image has a user of that name since 23.04.
inside useradd --create-home --uid 1000 --user-group --comment Ubuntu --shell /bin/bash \
    --groups adm,dialout,cdrom,floppy,sudo,audio,dip,video,plugdev ubuntu
