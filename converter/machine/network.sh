
# Above is what is this machine's own; change it there and restart the machine. Below is the same for all machines.
#
# The machine is alone at the other end of a virtual cable. No other host can reach it but at its published ports.
# "down" leaves nothing behind but a host that forwards: as Docker, "up" switches that on, and does not let the host
# forward for others if it did not do so before.

set -efu
export LC_ALL=C

NAMESPACE=d2n-$NAME
PATH_OF_NAMESPACE=/run/netns/$NAMESPACE
STATE=/run/docker2nspawn/network
ZONE=10213 # of connection tracking

have() {
    command -v "$1" >/dev/null
}

fail() {
    echo "$NAME: $1" >&2
    exit 1
}

set_sysctl() { # NAME VALUE, of the host
    printf '%s\n' "$2" >"/proc/sys/$(echo "$1" | tr . /)"
}

# Cut [HOST:]OUTSIDE:INSIDE/PROTOCOL into its parts.
cut_port() {
    protocol=${1##*/}
    rest=${1%/*}
    inside=${rest##*:}
    rest=${rest%:*}
    outside=${rest##*:}
    host=
    case $rest in *:*) host=${rest%:*} ;; esac
    first=${outside%-*}
    last=${outside#*-}
    target=$ADDRESS
    [ "$inside" = "$outside" ] || target=$ADDRESS:$inside
}

# Docker does not start a container whose port is taken either.
check_ports() {
    mkdir -p "$STATE"
    reserved=
    for port in $PORTS; do
        cut_port "$port"
        case $target in *-*) fail "PORTS: $port: a range must be the same on both sides" ;; esac
        check_sockets
        check_machines
        reserved="$reserved$protocol ${host:-*} $first $last
"
    done
    printf %s "$reserved" >"$STATE/$NAME"
}

check_sockets() {
    have ss || return 0
    case $protocol in tcp) kind=t ;; udp) kind=u ;; *) kind=S ;; esac
    ss -Hnl$kind "sport >= :$first and sport <= :$last" | while read -r _ _ _ local _; do
        address=${local%:*}
        case ${host:-any},${address%\%*} in
            any,* | *,\* | 0.0.0.0,[0-9]* | \[::\],\[* | [0-9]*,0.0.0.0 | \[*,\[::\] | "$host,$host")
                fail "port ${local##*:}/$protocol of the host is taken: see ss -nlp" ;;
        esac
    done
}

check_machines() {
    set +f
    for other in "$STATE"/*; do
        # What was killed together with the whole host's services holds no ports.
        if [ "$other" = "$STATE/$NAME" ] || [ ! -e "/run/netns/d2n-${other##*/}" ]; then continue; fi
        while read -r its_protocol its_host its_first its_last; do
            case ${host:-*},$its_host in
                \*,* | *,\* | "$its_host,$its_host" | 0.0.0.0,[0-9]* | [0-9]*,0.0.0.0) ;;
                *) continue ;;
            esac
            if [ "$protocol" = "$its_protocol" ] && [ "$first" -le "$its_last" ] && [ "$its_first" -le "$last" ]; then
                fail "port $outside/$protocol of the host leads to machine ${other##*/} already"
            fi
        done <"$other"
    done
    set -f
}

# Call $2 for each published port that connections in NAT's chain $1 may reach.
published() {
    for port in $PORTS; do
        cut_port "$port"
        case $1,$host in
            *,\[*) ;;             # see start_proxies
            prerouting,127.*) ;; # only the host itself, not who sends such packets to it
            *) "$2" "$1" ;;
        esac
    done
}

nft_match() {
    case $host in '' | 0.0.0.0) to='fib daddr type local' ;; *) to="ip daddr $host" ;; esac
    echo "$to $protocol dport $outside"
}

nft_dnat() {
    echo "$(nft_match) dnat to $target"
}

# A datagram that came while the machine was down made an entry without NAT, and every further one keeps that entry:
# a zone of their own does not see it.
nft_zone() {
    [ "$protocol" != udp ] || echo "$(nft_match) ct original zone set $ZONE"
}

nft_rules() {
    nft -f - <<END
table ip $NAMESPACE
delete table ip $NAMESPACE
table ip $NAMESPACE {
    chain raw {
        type filter hook prerouting priority raw;
        iifname "$LINK" ip saddr != $ADDRESS drop
        iifname "$LINK" ip daddr 127.0.0.0/8 drop
        $(published prerouting nft_zone)
    }
    chain prerouting {
        type nat hook prerouting priority -100;
        $(published prerouting nft_dnat)
    }
    chain output {
        type nat hook output priority -100;
        $(published output nft_dnat)
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        ip saddr $ADDRESS oifname != "d2n-*" masquerade
        ip saddr { $ADDRESS, 127.0.0.0/8 } oifname "$LINK" masquerade
    }
    chain forward {
        type filter hook forward priority filter;
        oifname != "$LINK" accept
        iifname "d2n-*" accept
        ct status dnat accept
        ct state established,related accept
        drop
    }
}
END
}

iptables_rule() { # TABLE CHAIN, then what to do with a published port
    case $host in '' | 0.0.0.0) to='-m addrtype --dst-type LOCAL' ;; *) to="-d $host" ;; esac
    table=$1
    chain=$2
    shift 2
    # shellcheck disable=SC2086 # words
    iptables -w -t "$table" -A "$chain" -p "$protocol" $to --dport "$first:$last" "$@"
}

iptables_dnat() {
    iptables_rule nat "$LINK-$1" -j DNAT --to-destination "$target"
}

iptables_zone() {
    [ "$protocol" != udp ] || iptables_rule raw "$LINK" -j CT --zone-orig $ZONE
}

# chain_of TABLE BUILTIN CHAIN: a chain of ours that BUILTIN jumps to, behind the admin's own chain for Docker.
chain_of() {
    iptables -w -t "$1" -N "$3"
    place=1
    number=0
    while read -r _ _ jump; do
        case $jump in '-j DOCKER-USER') place=$((number + 1)) ;; esac
        number=$((number + 1))
    done <<END
$(iptables -w -t "$1" -S "$2")
END
    iptables -w -t "$1" -I "$2" "$place" -j "$3"
}

remove_chain() { # TABLE BUILTIN CHAIN
    for _ in 1 2 3 4 5; do # another program may change the rules at the same time
        iptables -w -t "$1" -S "$3" >/dev/null 2>&1 || return 0
        while iptables -w -t "$1" -D "$2" -j "$3" 2>/dev/null; do :; done
        iptables -w -t "$1" -F "$3"
        iptables -w -t "$1" -X "$3"
    done
}

# Where there is no nft.
iptables_nat() {
    chain_of raw PREROUTING "$LINK"
    iptables -w -t raw -A "$LINK" -i "$LINK" ! -s "$ADDRESS" -j DROP
    iptables -w -t raw -A "$LINK" -i "$LINK" -d 127.0.0.0/8 -j DROP
    published prerouting iptables_zone
    chain_of nat PREROUTING "$LINK-prerouting"
    published prerouting iptables_dnat
    chain_of nat OUTPUT "$LINK-output"
    published output iptables_dnat
    chain_of nat POSTROUTING "$LINK"
    iptables -w -t nat -A "$LINK" -s "$ADDRESS" ! -o d2n-+ -j MASQUERADE
    iptables -w -t nat -A "$LINK" -s "$ADDRESS,127.0.0.0/8" -o "$LINK" -j MASQUERADE
}

# Also where nft has the same rules: what another firewall drops is dropped, whoever accepts it.
iptables_filter() {
    chain_of filter FORWARD "$LINK"
    iptables -w -A "$LINK" -i "$LINK" -j ACCEPT
    iptables -w -A "$LINK" ! -o "$LINK" -j RETURN
    iptables -w -A "$LINK" -i d2n-+ -j ACCEPT
    iptables -w -A "$LINK" -m conntrack --ctstate DNAT,ESTABLISHED,RELATED -j ACCEPT
    iptables -w -A "$LINK" -j DROP
}

add_rules() {
    if have nft; then
        nft_rules
    elif have iptables; then
        iptables_nat
    else
        fail "neither nft nor iptables is there: install nftables"
    fi
    if have iptables; then iptables_filter; fi
    # Its rules accept only interfaces that it knows.
    if have firewall-cmd && firewall-cmd --quiet --state 2>/dev/null; then
        firewall-cmd --quiet --zone=trusted --add-interface="$LINK" || :
    fi
}

remove_rules() {
    if have nft; then
        nft delete table ip "$NAMESPACE" 2>/dev/null || :
    elif have iptables; then
        remove_chain raw PREROUTING "$LINK"
        remove_chain nat PREROUTING "$LINK-prerouting"
        remove_chain nat OUTPUT "$LINK-output"
        remove_chain nat POSTROUTING "$LINK"
    fi
    if have iptables; then remove_chain filter FORWARD "$LINK"; fi
    if have firewall-cmd && firewall-cmd --quiet --zone=trusted --query-interface="$LINK" 2>/dev/null; then
        firewall-cmd --quiet --zone=trusted --remove-interface="$LINK" || :
    fi
}

switch_forwarding_on() {
    [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ] || return 0
    if have iptables; then
        iptables -w -P FORWARD DROP
    else
        nft -f - <<END
table ip docker2nspawn
delete table ip docker2nspawn
table ip docker2nspawn {
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "d2n-*" accept
        oifname "d2n-*" accept
    }
}
END
    fi
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# Docker takes connections to a published port by IPv6 too, and hands them to the container's IPv4 address.
start_proxies() {
    [ -e /proc/net/if_inet6 ] && have systemd-run || return 0
    for proxy in /usr/lib/systemd/systemd-socket-proxyd /lib/systemd/systemd-socket-proxyd ''; do
        [ ! -x "$proxy" ] || break
    done
    [ -n "$proxy" ] || return 0
    count=0
    for port in $PORTS; do
        cut_port "$port"
        case $protocol,$host in
            tcp,) host='[::]' ;;
            tcp,\[*) ;;
            *) continue ;;
        esac
        number=$first
        while [ "$number" -le "$last" ]; do
            if [ "$first" = "$last" ]; then to=$inside; else to=$number; fi
            count=$((count + 1))
            systemd-run --quiet --collect --unit="$LINK-$count" --property=DynamicUser=yes \
                --description="Port $number of the host to machine $NAME by IPv6" \
                --socket-property="ListenStream=$host:$number" --socket-property=BindIPv6Only=ipv6-only \
                "$proxy" "$ADDRESS:$to" || fail "cannot listen on port $number of $host"
            number=$((number + 1))
        done
    done
}

up() {
    have ip || fail "ip is not there: install iproute2"
    # Two machines must not find the same port free.
    mkdir -p "$STATE"
    exec 9>"$STATE/.lock"
    flock 9
    down # what something killed has left
    check_ports
    ip netns add "$NAMESPACE"
    ip -n "$NAMESPACE" link set lo up
    [ -z "$ADDRESS" ] || lay_cable
    echo "$SYSCTLS" | while read -r name value; do
        case $name in
            '') continue ;;
            net.ipv6.*) if [ -z "$ADDRESS" ] || [ ! -e /proc/net/if_inet6 ]; then continue; fi ;;
        esac
        # shellcheck disable=SC2016 # for the inner shell
        nsenter --net="$PATH_OF_NAMESPACE" \
            /bin/sh -c 'printf "%s\n" "$2" >"$1"' sh "/proc/sys/$(echo "$name" | tr . /)" "$value" ||
            fail "this kernel does not take the sysctl $name=$value"
    done
    [ -n "$ADDRESS" ] || return 0
    ip -n "$NAMESPACE" link set eth0 up
    ip -n "$NAMESPACE" route add "$GATEWAY/32" dev eth0 src "$ADDRESS"
    ip -n "$NAMESPACE" route add default via "$GATEWAY" dev eth0
    start_proxies
}

# Both ends, but the machine's is not up yet: its settings come first.
lay_cable() {
    # With addresses of its own nobody (udev) gives the cable others.
    ip link add "$LINK" address "$GATEWAY_MAC" type veth peer name eth0 address "$MAC" netns "$NAMESPACE"
    # Datagrams to 127.0.0.1 of the host may go to the machine; the rules see to it that none come from there.
    set_sysctl "net.ipv4.conf.$LINK.route_localnet" 1
    [ ! -e /proc/net/if_inet6 ] || set_sysctl "net.ipv6.conf.$LINK.disable_ipv6" 1
    add_rules
    switch_forwarding_on
    ip address add "$GATEWAY/32" dev "$LINK"
    ip link set "$LINK" up
    ip route add "$ADDRESS/32" dev "$LINK" src "$GATEWAY"

    # The network's size is for who looks; its other machines are behind the gateway as well.
    ip -n "$NAMESPACE" address add "$ADDRESS/$PREFIX" broadcast + dev eth0 noprefixroute
}

down() {
    systemctl stop "$LINK-*.socket" "$LINK-*.service" || :
    remove_rules || : # the rest has to go whatever fails
    # Both ends go at once; a namespace lives on as long as a process is in it.
    ip link delete "$LINK" 2>/dev/null || :
    ip netns delete "$NAMESPACE" 2>/dev/null || :
    rm -f "$STATE/$NAME"
}

case ${1-} in
    up | down) "$1" ;;
    reload)
        [ -n "$ADDRESS" ] || exit 0
        remove_rules || :
        add_rules
        ;;
    ended) # of "up", by systemd: after a failure nothing stays
        [ "${SERVICE_RESULT-}" = success ] || down
        ;;
    *)
        echo "usage: /bin/sh $0 up|down|reload" >&2
        exit 2
        ;;
esac
