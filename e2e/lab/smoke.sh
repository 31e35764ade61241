#!/bin/bash
# Smoke test of lab: everything it promises, against real guests. Takes about a
# minute. Usage: smoke.sh [lab binary]; without one it builds it.
set -u
cd "$(dirname "$0")" || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
lab=${1:-$dir/lab}
[ $# -gt 0 ] || CGO_ENABLED=0 go build -o "$lab" . || exit 1
failed=0

# check NAME GOT WANT
check() {
	if [ "$2" = "$3" ]; then
		echo "ok    $1"
	else
		printf 'FAIL  %s\n\tgot:  %q\n\twant: %q\n' "$1" "$2" "$3"
		failed=1
	fi
}

run() { "$lab" -mode guest "$@"; }

begin=$EPOCHREALTIME
run /bin/true
check 'exit status 0' $? 0
printf 'note  lab /bin/true took %s s\n' "$(bc <<<"$EPOCHREALTIME - $begin")"
run sh -c 'exit 42'
check 'exit status 42' $? 42
run sh -c 'kill -SEGV $$' 2>/dev/null
check 'ended by a signal' $? 139
run /nonexistent 2>/dev/null
check 'no such program' $? 125
run -timeout 3s sleep 60 2>/dev/null
check 'timeout' $? 124
run sh -c 'echo c >/proc/sysrq-trigger; sleep 60' 2>"$dir/panic"
check 'kernel panic' "$? $(grep -c 'Kernel panic' "$dir/panic")" '125 1'

head -c 3000000 /dev/urandom >"$dir/random"
run cat "$dir/random" 2>&1 | cmp - "$dir/random"
check 'output is byte-exact' $? 0
run sh -c 'echo out; echo err >&2' >"$dir/out" 2>"$dir/err"
check 'stdout and stderr apart' "$(cat "$dir/out") $(cat "$dir/err")" 'out err'
check 'stdout and stderr in order' "$(run sh -c 'echo 1; echo 2 >&2; echo 3' 2>&1 | tr '\n' ' ')" '1 2 3 '
late=$(run sh -c 'echo x; sleep 3; date +%s' | { read -r _; seen=$(date +%s); read -r end; echo $((end - seen)); })
check 'output is live' "$([ "$late" -ge 2 ] && echo yes)" yes

check 'arguments' "$(run printf '%s|' 'a b' '' $'c\nd' '-v')" $'a b||c\nd|-v|'
check 'working directory' "$(cd "$dir" && run sh -c 'pwd; ls random')" "$dir"$'\nrandom'
check 'environment' "$(SLUICE_X=1 FOO=2 CI=true run sh -c 'echo $SLUICE_X$FOO$CI$SLUICE_LAB')" 1trueguest
run touch "$PWD/left-behind" /left-behind
check 'writes stay in the guest' "$(ls -d left-behind /left-behind 2>/dev/null)" ''
mkdir "$dir/o"
SLUICE_LAB_OUT=$dir/o run sh -c 'echo kept >$SLUICE_LAB_OUT/f'
check 'writes to SLUICE_LAB_OUT arrive' "$(cat "$dir/o/f")" kept
check 'IPVS' "$(run sh -c 'ipvsadm -A -t 10.0.0.1:80 -s mh && ipvsadm -Sn')" '-A -t 10.0.0.1:80 -s mh'
check 'iptables and ipset' "$(run sh -c 'ipset create s hash:ip,port && iptables -t nat -A POSTROUTING -m set --match-set s dst,dst -j MASQUERADE && ip6tables -S | wc -l && iptables-save -t nat | grep -c match-set')" $'3\n1'

"$lab" -mode guest sleep 60 2>/dev/null & pid=$!
sleep 2
kill -INT $pid
wait $pid
check 'interrupted' $? 130
mkdir "$dir/killed"
TMPDIR=$dir/killed "$lab" -mode guest sleep 60 & pid=$!
sleep 2
kill -KILL $pid
wait $pid 2>/dev/null
sleep 1
check 'no kernel survives lab' "$(pgrep -c -f "linux.uml .*init=$lab ")" 0
mkdir "$dir/tmp"
TMPDIR=$dir/tmp run true
TMPDIR=$dir/tmp run -timeout 2s sleep 60 2>/dev/null
TMPDIR=$dir/tmp run -companion false true 2>/dev/null
check 'nothing left in the temporary directory' "$(find "$dir/tmp" -mindepth 1 ! -name '*.lock')" ''

companion=$dir/companion
cat >"$companion" <<'END'
#!/bin/sh
socat -u SYSTEM:'head -c 5000000 /dev/zero' TCP-LISTEN:7000,bind=192.0.2.1,reuseaddr &
socat TCP-LISTEN:7001,bind=192.0.2.1,reuseaddr,fork SYSTEM:'echo $SOCAT_PEERADDR' &
echo hello >$SLUICE_LAB_SHARED/note
sleep 1
touch $SLUICE_LAB_SHARED/ready
wait
END
chmod +x "$companion"
check 'companion over the tap' "$(run -companion "$companion" sh -c 'cat $SLUICE_LAB_SHARED/note; socat -u TCP:192.0.2.1:7001 -')" $'hello\n192.0.2.2'
check 'bulk over the tap' "$(run -timeout 20s -companion "$companion" sh -c 'socat -u TCP:192.0.2.1:7000 - | wc -c')" 5000000
run -companion 'sh -c "echo broken; exit 3"' true 2>"$dir/err"
check 'companion that fails' "$? $(grep -c broken "$dir/err")" '125 1'

check 'native, inside a guest: own network' "$(run "$lab" -mode auto sh -c 'echo $SLUICE_LAB; ip -o link | wc -l; ls /run/netns; ipvsadm -A -t 10.0.0.1:80; exit 5'; echo $?)" $'native\n1\n5'
check 'native companion' "$(run "$lab" -mode native -companion "$companion" sh -c 'socat -u TCP:192.0.2.1:7001 -')" 192.0.2.1
exit $failed
