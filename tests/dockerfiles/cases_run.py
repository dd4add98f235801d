"""RUN in all its forms, and what it leaves in the tree."""

# ruff: noqa: E101, E501 -- Dockerfiles as they are written

from __future__ import annotations

from tests.dockerfiles.case import BUSYBOX, DEBIAN, Case, File, Link

# What a program sees of itself, for RUN to write down.
_SEEN = r"""tr '\0' '\n' </proc/self/environ | sort >/seen-env; id >/seen-id; pwd >/seen-cwd; umask >/seen-umask"""

CASES = (
    Case(
        "run-shell",
        "shell form: lists, pipes, quotes, continued lines, comments in them",
        BUSYBOX
        + r"""
ENV A="one two" B='$A'
RUN echo "$A" '$A' $B >/a && \
    # a comment
    echo second \
      \
    >>/a ; \

    echo "last # no comment" >> /a   # the shell's comment
RUN echo $0 $# >/zero; echo "a\tb" 'a\tb' a\\b >/backslash; printf '%s\n' \
  "continued \
  string" >/string
run   echo lower-case   and   spaces   >/lower
	RUN	echo	tab	>/tab
RUN false || true; ( exit 3 ) || echo $? >/status
RUN test -n "" ; cat /etc/passwd | wc -l >/lines
""",
    ),
    Case(
        "run-exec",
        "exec form: no shell, nothing expanded, found by PATH",
        BUSYBOX
        + r"""
ENV A=value
RUN ["/bin/sh", "-c", "printf '<%s>\\n' \"$0\" \"$@\" >/args", "zero", "a b", "$A", "${A}", "", "\u00e9\t\"\\", "*"]
RUN ["touch", "/by path", "/$A"]
RUN [ "mkdir" , "-p","/made/by/exec" ]
ENV PATH=/opt/own:/bin
RUN mkdir -p /opt/own && printf '#!/bin/sh\necho own "$@" >/own\n' >/opt/own/touch && chmod 755 /opt/own/touch
RUN ["touch", "/not touched"]
""",
    ),
    Case(
        "run-not-json",
        "what begins like JSON and is none goes to the shell",
        BUSYBOX
        + r"""
RUN [ -e /bin/sh ] && touch /one
RUN ["/bin/sh"] || touch /two; [ 'a' = "a" ] && touch /three
RUN [ "a" = 'a' ] && touch /four
""",
    ),
    Case(
        "run-heredoc",
        "here-documents as script",
        BUSYBOX
        + r"""
ENV A=value
ARG B=argument
RUN <<EOF
echo "$A $B \$A" >/a
false
echo "goes on after a failure $(echo nested)" >>/a
  echo "  indented" >>/a
echo continued \
  line >>/a
# a comment
EOF
RUN <<'EOF'
echo "$A \$A" 'single' >/quoted
EOF
RUN <<-EOF
	if true; then
		echo "	tab" >/tabs
	fi
	EOF
RUN <<"E O F"
echo spaces >/spaces
E O F
RUN <<EOF

EOF
""",
    ),
    Case(
        "run-heredoc-input",
        "here-documents as input of a command",
        BUSYBOX
        + r"""
ENV A=value
RUN cat >/expanded <<EOF
$A ${A:-none} $(echo run) \$A "quoted" back\\slash
EOF
RUN cat <<'EOF' >/raw && echo more >>/raw
$A $(echo run) \$A \\
EOF
RUN cat - <<-ONE >/stripped; cat <<-'TWO' >>/stripped
	one $A
	  two
	ONE
		three $A
	TWO
RUN cat <<A /dev/fd/3 3<<B >/both
first
A
second
B
RUN sh -s argument <<EOF >/interpreted
echo "\$1" $A
EOF
""",
    ),
    Case(
        "run-heredoc-script",
        "here-documents with an interpreter of their own",
        BUSYBOX
        + r"""
ENV A=value
RUN <<EOF
#!/bin/awk -f
BEGIN { print ENVIRON["A"], "$A" > "/awk" }
EOF
RUN <<EOF cat >/named
text $A
EOF
RUN <<-'EOF'
	#!/bin/sh -e
	case $0 in /dev/pipes/*) echo pipes;; *) echo "$0";; esac >/script
	echo $# "$A" >>/script
	EOF
RUN awk -f /dev/stdin <<'EOF' >/program
BEGIN { print "from stdin" }
EOF
""",
    ),
    Case(
        "run-heredoc-bash",
        "here-documents with Debian's bash",
        DEBIAN
        + r"""
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN <<EOF
shopt -s extglob
a=(one two)
echo "${a[1]}" "$0" "$-" >/bash
EOF
SHELL ["/bin/sh", "-c"]
RUN bash <<EOF
declare -A m=([k]=v)
echo "\${m[k]} \$BASH_VERSINFO" >/declared
EOF
RUN <<EOF
#!/usr/bin/env perl
open my $f, ">", "/perl"; print $f "$0 @ARGV $$f\n" =~ s/\d+|\(.*//gr;
EOF
""",
    ),
    Case("run-fails", "a command that fails", BUSYBOX + "RUN echo before; exit 7\n", fails="7"),
    Case(
        "run-exec-missing",
        "an exec form whose program is not there",
        BUSYBOX + 'RUN ["none", "x"]\n',
        fails="",
    ),
    Case(
        "run-heredoc-fails",
        "a script whose last command fails",
        BUSYBOX + "RUN <<EOF\ntrue\nfalse\nEOF\n",
        fails="1",
    ),
    Case(
        "run-environment",
        "environment, ids and directory, exactly",
        BUSYBOX
        + rf"""
ARG early=1
ENV A=1 B="two words" C=
ARG LATE=late A=hidden unset
RUN {_SEEN}
ENV LATE=env
USER 1000
WORKDIR /work
RUN {_SEEN.replace("/seen", "/tmp/seen-later")}
""",
    ),
    Case(
        "run-user",
        "USER by name, by number, with a group, unknown numbers, supplementary groups",
        BUSYBOX
        + r"""
RUN echo 'app:x:1000:1000:App:/home/app:/bin/sh' >>/etc/passwd; echo 'app:x:1000:' >>/etc/group; echo 'extra:x:2000:app,daemon' >>/etc/group
USER app
RUN id >/tmp/1; echo $HOME $USER >>/tmp/1
USER 1000
RUN id >/tmp/2; echo $HOME >>/tmp/2
USER app:daemon
RUN id >/tmp/3; touch /tmp/file
USER 4000
RUN id >/tmp/4; echo $HOME >>/tmp/4
USER 4000:5000
RUN id >/tmp/5
USER daemon
RUN id >/tmp/6; echo $HOME >>/tmp/6
USER 1:extra
RUN id >/tmp/7
USER root
RUN id >/tmp/8
USER 0:1
RUN id >/tmp/9
USER app
RUN ["sh", "-c", "id -u >/tmp/10"]
RUN <<EOF
id -un >/tmp/11
EOF
""",
    ),
    Case(
        "run-user-unknown",
        "USER that does not exist",
        BUSYBOX + "USER nobody-here\nRUN true\n",
        fails="nobody-here",
    ),
    Case(
        "run-user-made",
        "a user made in RUN, with Debian's own tools",
        DEBIAN
        + r"""
RUN groupadd --gid 3000 team && useradd --uid 3001 --gid team --groups audio,video --create-home --shell /bin/bash maker && mkdir /srv/app && chown maker:team /srv/app
USER maker
WORKDIR /srv/app
RUN id >id && echo $HOME >home && touch ~/.rc
COPY --chown=maker:team file .
COPY --chown=maker file named
RUN ls -l >list.txt && sed -i 's/[A-Z][a-z][a-z] .[0-9] [0-9:]*//' list.txt
""",
        {"file": "owned\n"},
    ),
    Case(
        "run-privileges",
        "capabilities, limits on privileges, file creation mask",
        BUSYBOX
        + r"""
RUN grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status >/root-status
RUN umask >/umask; touch /touched; mkdir /made; chown 1:1 /touched; chmod 6755 /touched; chown 2 /made
RUN mknod /null c 1 3 && mkfifo -m 640 /fifo && (mknod /disk b 8 0 || true)
RUN mount -t tmpfs none /mnt 2>/dev/null && echo yes >/mounted || echo no >/mounted
RUN hostname other 2>/dev/null && echo yes >/named || echo no >/named
USER 1000:1000
RUN grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status >/tmp/user-status
""",
    ),
    Case(
        "run-shell-instruction",
        "SHELL: shell form, here-documents and later CMD",
        BUSYBOX
        + r"""
SHELL ["/bin/sh", "-ec"]
RUN echo $- >/one
SHELL ["/bin/busybox", "ash", "-uxc"]
RUN echo $- "$0" >/two
RUN <<EOF
echo $- script >/three
EOF
SHELL ["/bin/busybox", "awk"]
RUN BEGIN { print "an awk program" >"/four" }
CMD BEGIN { print 1 }
ENTRYPOINT BEGIN { print 2 }
HEALTHCHECK CMD BEGIN { exit 0 }
""",
    ),
    Case(
        "run-everywhere",
        "files in /run, /tmp, /var/tmp, /dev/shm, /sys, and those that a build puts in",
        BUSYBOX
        + r"""
RUN mkdir -p /run/lock /var/run /tmp/d && echo run >/run/file && echo tmp >/tmp/d/file && chmod 1777 /run/lock
RUN cat /run/file /tmp/d/file >/kept; echo shm >/dev/shm/file 2>/dev/null; true
RUN ls /dev/shm | wc -l >/shm-afterwards; echo text >>/etc/hosts; echo "own" >/etc/hostname
RUN rm -rf /tmp && mkdir -m 700 /tmp
RUN : >/dev/null; echo out; echo err >&2; cat >/input; wc -c </input >/count
""",
    ),
    Case(
        "run-modes",
        "every bit of a mode; names with every character",
        BUSYBOX
        + r"""
RUN for m in 0 1 4 7 111 222 444 755 777 1777 2755 4755 6711 7777; do touch /f$m; chmod $m /f$m; mkdir /d$m; chmod $m /d$m; done
RUN mkdir /n; cd /n; touch -- ' a b ' "$(printf 'line\nbreak')" '*' '-rf' '\' '"' "'" '$w' 'ünï' '#' ':' 'a=b' '.wh' '%s' "$(printf '\001')"
RUN ln -s '' /empty 2>/dev/null; ln -s 'a b' /n/link; ln -s /n /absolute; ln -s ../../.. /up; ln -s none /dangling; ln -s loop /loop; true
""",
    ),
    Case(
        "run-attributes",
        "extended attributes and file capabilities",
        BUSYBOX
        + r"""
RUN touch /file && mkdir /dir && attribute set user.note 'some text' /file && attribute set user.dir x /dir
RUN cp /bin/busybox /ping && attribute capability /ping
RUN touch /removed && attribute set user.gone x /removed
RUN rm /removed; touch /removed
RUN cp -p /ping /copied; attribute set user.note changed /file
""",
    ),
    Case(
        "run-links",
        "hard links in one RUN and across several",
        BUSYBOX
        + r"""
RUN echo one >/a && ln /a /b && mkdir /d && ln /a /d/c && ln -s a /s && ln /s /t
RUN ln /a /later
RUN echo changed >>/b
RUN echo base >/x; ln /x /y
RUN rm /x
RUN chmod 600 /y
""",
    ),
    Case(
        "run-removes",
        "what the base or an earlier step has is removed, replaced, made anew",
        DEBIAN
        + r"""
RUN rm -rf /usr/share/doc /usr/share/man /etc/motd /etc/debian_version && mkdir /usr/share/doc && echo new >/usr/share/doc/new
RUN mkdir -p /o/a/b && echo 1 >/o/a/b/f && echo 2 >/o/g
RUN rm -r /o && mkdir -p /o/a && echo 3 >/o/a/h
RUN rm -r /o/a && ln -s /etc /o/a
RUN rm /o/a && echo file >/o/a
RUN rm /o/a && mkdir /o/a
RUN mv /o /moved && mv /etc/skel /moved/
RUN rm -r /opt; rmdir /srv; echo srv >/srv; rm /etc/issue && mkdir /etc/issue
RUN mv /usr/share/common-licenses /renamed && mkdir /usr/share/common-licenses && mv /renamed /usr/share/common-licenses/in
RUN touch /etc/passwd; chmod 600 /etc/group; chown 1:1 /home
""",
    ),
    Case(
        "run-ends",
        "what a RUN leaves running ends with it",
        BUSYBOX
        + r"""
RUN (sleep 1000 >/dev/null 2>&1 &) ; echo done >/one
RUN (while sleep 1; do echo still >>/log; done) >/dev/null 2>&1 & echo $? >/two
RUN ps -o comm= >/processes 2>/dev/null || ps >/processes; grep -c sleep /processes >/sleeping; rm /processes; true
""",
    ),
    Case(
        "run-cd",
        "a directory or variable of one RUN is not the next one's",
        BUSYBOX
        + r"""
RUN cd /tmp && A=1 && export A && pwd >/one
RUN pwd >/two; echo "[$A]" >>/two
RUN cd /etc; umask 077; touch /three
RUN touch /four
""",
    ),
    Case(
        "run-mount-bind",
        "--mount=type=bind: context, stage, image, subdirectory, writing",
        r"""
FROM busybox:lab AS other
RUN mkdir -p /out/sub && echo stage >/out/file && ln -s file /out/link
FROM busybox:lab
RUN --mount=target=/ctx ls -lan /ctx | awk 'NR > 1 {print $1, $3, $4, $9}' | grep -v total >/listed && cp /ctx/a.txt /a
RUN --mount=type=bind,source=dir,target=/new/deep/place cat /new/deep/place/b.txt >/b; touch /new/deep/place/x 2>/dev/null && echo rw >/mode || echo ro >/mode
RUN --mount=type=bind,src=a.txt,dst=/file.txt cat /file.txt >/c
RUN --mount=type=bind,from=other,source=/out,target=/o,rw echo written >/o/written && cat /o/written /o/link >/d
RUN --mount=from=other,source=/out,target=/o ls /o >/e
RUN --mount=from=busybox:lab,target=/img ls /img/etc >/f
WORKDIR /rel
RUN --mount=target=here pwd >/g; ls here >>/g
RUN --mount=target=/etc/over,source=dir --mount=type=bind,target=/two,source=a.txt cat /etc/over/b.txt /two >/h
RUN --mount=target=/usr/x mkdir /usr/y; touch /usr/z
""",
        {"a.txt": "a\n", "dir/b.txt": File(b"b\n", 0o600), "dir/l": Link("b.txt")},
    ),
    Case(
        "run-mount-cache",
        "--mount=type=cache: kept from RUN to RUN, not in the image",
        BUSYBOX
        + r"""
ARG salt
RUN --mount=type=cache,target=/cache/deep,id=equal-$salt echo one >/cache/deep/one; ls -land /cache/deep | awk '{print $1, $3, $4}' >/a
RUN --mount=type=cache,target=/again,id=equal-$salt cat /again/one >/b
RUN --mount=type=cache,target=/c,id=equal-own-$salt,uid=1000,gid=1001,mode=0700 ls -lan /c | awk '$NF=="." {print $1, $3, $4}' >/c-mode; ls -lan / | awk '$NF=="c" {print $1,$3,$4}' >>/c-mode
RUN --mount=type=cache,target=/r,id=equal-$salt,readonly touch /r/x 2>/dev/null && echo rw >/d || echo ro >/d
RUN --mount=type=cache,target=/l,id=equal-$salt,sharing=locked ls /l >/e
RUN --mount=type=cache,target=/etc ls /etc >/f; echo new >/etc/new
RUN ls /cache /etc >/g 2>&1; true
""",
        build_args={"salt": "1"},
    ),
    Case(
        "run-mount-cache-from",
        "a cache that begins with a directory of a stage",
        r"""
FROM busybox:lab AS seed
RUN mkdir -p /seed/d && echo seeded >/seed/d/file && chown -R 5:6 /seed
FROM busybox:lab
RUN --mount=type=cache,target=/cache,from=seed,source=/seed,id=equal-seed cat /cache/d/file >/a; stat -c '%a %u %g' /cache /cache/d >>/a; echo more >/cache/more
RUN --mount=type=cache,target=/cache,from=seed,source=/seed,id=equal-seed ls /cache >/b
""",
    ),
    Case(
        "run-mount-tmpfs",
        "--mount=type=tmpfs: empty, with a size, over what is there",
        BUSYBOX
        + r"""
RUN --mount=type=tmpfs,target=/scratch stat -f -c %T /scratch >/a; echo x >/scratch/x; stat -c '%a %u %g' /scratch >>/a
RUN --mount=type=tmpfs,target=/etc ls /etc | wc -l >/b
RUN --mount=type=tmpfs,target=/small,size=1m dd if=/dev/zero of=/small/x bs=1M count=3 2>/dev/null && echo fits >/c || echo full >/c
RUN ls /scratch >/d 2>/dev/null || echo none >/d
RUN --mount=type=tmpfs,target=/made/on/the/way true
""",
    ),
    Case(
        "run-mount-secret",
        "--mount=type=secret: places, owners, missing",
        BUSYBOX
        + r"""
RUN --mount=type=secret,id=token cat /run/secrets/token >/a; stat -c '%a %u %g %F' /run/secrets/token >>/a; stat -c '%a %u %g' /run /run/secrets >>/a
RUN --mount=type=secret,id=token,target=/etc/token,mode=0444,uid=1,gid=2 stat -c '%a %u %g' /etc/token >/b
RUN --mount=type=secret,id=token,target=relative cat relative >/c; ls / | grep relative >>/c
RUN --mount=type=secret,target=/deep/place/token cat /deep/place/token >/d
WORKDIR /w
RUN --mount=type=secret,id=token,dst=in/w cat /w/in/w >/e
RUN --mount=type=secret,id=none cat /run/secrets/none >/f 2>/dev/null || echo none >/f
USER 1000
RUN --mount=type=secret,id=token,uid=1000 cat /run/secrets/token >/tmp/g
RUN --mount=type=secret,id=token cat /run/secrets/token >/tmp/h 2>/dev/null || echo refused >/tmp/h
RUN ls /run/secrets >/tmp/i 2>/dev/null || echo none >/tmp/i
""",
        secrets={"token": b"s3cret\n"},
    ),
    Case(
        "run-mount-secret-required",
        "a required secret that is not given",
        BUSYBOX + "RUN --mount=type=secret,id=none,required true\n",
        fails="none",
    ),
    Case(
        "run-mount-ssh",
        "--mount=type=ssh: where the agent is found",
        BUSYBOX
        + r"""
RUN --mount=type=ssh echo $SSH_AUTH_SOCK >/a; stat -c '%F %a %u %g' $SSH_AUTH_SOCK >>/a
RUN --mount=type=ssh,target=/agent/socket,mode=0666,uid=1,gid=2 echo $SSH_AUTH_SOCK >/b; stat -c '%F %a %u %g' $SSH_AUTH_SOCK >>/b
RUN echo "[$SSH_AUTH_SOCK]" >/c
""",
        ssh=True,
    ),
    Case(
        "run-mount-ssh-none",
        "--mount=type=ssh without an agent",
        BUSYBOX
        + r"""
RUN --mount=type=ssh echo "[$SSH_AUTH_SOCK]" >/a
""",
    ),
    Case(
        "run-mount-variables",
        "variables in --mount",
        BUSYBOX
        + r"""
ARG place=/there
ENV what=a.txt
RUN --mount=target=${place},source=$what cat /there >/a
RUN --mount=type=cache,target=/c$place,id=x-$what ls -d /c/there >/b
""",
        {"a.txt": "a\n"},
    ),
    Case(
        "run-network-none",
        "--network=none: nothing but the loopback interface",
        BUSYBOX
        + r"""
RUN --network=none ls /sys/class/net >/a 2>/dev/null; ip -o addr | awk '{print $2, $4}' | sort >>/a
RUN --network=default ip -o link | grep -c lo: >/b
""",
    ),
    Case(
        "run-network-host",
        "--network=host",
        BUSYBOX + "RUN --network=host ip -o link | grep -c lo: >/a\n",
        allow=("network.host",),
    ),
    Case(
        "run-hostname",
        "host name, loopback's name, name servers' file",
        BUSYBOX
        + r"""
RUN hostname >/a; grep -c localhost /etc/hosts >/b; test -e /etc/resolv.conf; echo $? >/c
""",
    ),
    Case(
        "run-terminal",
        "standard streams",
        BUSYBOX
        + r"""
RUN for n in 0 1 2; do test -t $n && echo terminal || echo none; done >/a; ls -l /proc/self/fd | awk 'NR>1 {print $9}' | sort >/b; cat | wc -c >/d
RUN echo to >/dev/stderr; echo to >/dev/stdout; echo $? >/e
""",
    ),
    Case(
        "run-proc-sys",
        "which of /proc and /sys can be written, what is hidden, what is above the root",
        BUSYBOX
        + r"""
RUN for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/power/state /proc/sys/net/ipv4/ip_forward; do [ -w $f ] && (: >>$f) 2>/dev/null && echo "$f w" || echo "$f r"; done >/a
RUN for f in /proc/kcore /proc/keys /proc/timer_list; do [ -s $f ] && head -c1 $f 2>/dev/null | wc -c || echo 0; done >/b
RUN attribute above >/above
RUN ls /dev | grep -vE '^(core|fd|mqueue)$' | sort >/dev-names; stat -c '%a %u %g %F %t %T' /dev/null /dev/zero /dev/full /dev/tty /dev/urandom /dev/ptmx >/dev-nodes 2>/dev/null; true
""",
    ),
)
