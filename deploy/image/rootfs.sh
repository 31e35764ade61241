#!/bin/sh
# Assembles the root of Sluice's image in a directory, from the Debian system that
# it runs on: the program, iptables of both kinds, modprobe, the libraries that
# these load, and nothing else: no shell, no package manager, no certificates (the
# API server's comes with the service account).
#
#   deploy/image/rootfs.sh bin/sluice DIRECTORY
#
# It prints what it has put there, with sizes. What it copies is described in
# var/lib/dpkg/status.d, where scanners look, with its licences in usr/share/doc.
set -eu

if [ $# -ne 2 ]; then
	echo "usage: $0 SLUICE DIRECTORY" >&2
	exit 2
fi
sluice=$1 root=$2
PATH=$PATH:/usr/sbin:/sbin

for tool in xtables-legacy-multi xtables-nft-multi modprobe; do
	command -v "$tool" >/dev/null || {
		echo "$0: $tool is not here; apt-get install iptables kmod" >&2
		exit 1
	}
done
if [ -n "$(ls -A "$root" 2>/dev/null)" ]; then
	echo "$0: $root is not empty; remove it, or name another" >&2
	exit 1
fi

mkdir -p "$root"
copied=$(mktemp)
trap 'rm -f "$copied"' EXIT

# Merged, as Debian has it, and with the places that a container mounts on.
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" \
	"$root/etc/sluice" "$root/run" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" \
	"$root/usr/lib/modules" "$root/host/proc/sys/net" "$root/var/lib/dpkg/status.d"
for dir in bin sbin lib lib64; do
	ln -s "usr/$dir" "$root/$dir"
done
chmod 1777 "$root/tmp"

# put copies a file of the system to the same place, and the link by whose name it
# was asked for.
put() {
	file=$(realpath "$1")
	name=$(realpath "$(dirname "$1")")/$(basename "$1")
	if [ ! -e "$root$file" ]; then
		mkdir -p "$root$(dirname "$file")"
		cp -p "$file" "$root$file"
		echo "$file" >>"$copied"
	fi
	if [ ! -e "$root$name" ]; then
		mkdir -p "$root$(dirname "$name")"
		ln -s "$(realpath -s --relative-to="$(dirname "$name")" "$file")" "$root$name"
	fi
}

# put_with_libraries does so with what the dynamic linker would load.
put_with_libraries() {
	put "$1"
	ldd "$1" | sed -n 's/.*=> *\(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
		put "$library"
	done
}

for kind in legacy nft; do
	multi=$(realpath "/usr/sbin/xtables-$kind-multi")
	put_with_libraries "$multi"
	for family in iptables ip6tables; do
		for verb in "" -save -restore; do
			ln -s "$(basename "$multi")" "$root/usr/sbin/$family-$kind$verb"
		done
	done
done
# Who uses neither on a node yet gets the kind that Debian prefers.
for family in iptables ip6tables; do
	for verb in "" -save -restore; do
		ln -s xtables-nft-multi "$root/usr/sbin/$family$verb"
	done
done

# Every match and target: rules of others are listed too. Those of ebtables and
# arptables are for other programs.
for extension in /usr/lib/*/xtables/lib[xi]*.so; do
	case $(basename "$extension") in
	libxt_* | libipt_* | libip6t_*) put_with_libraries "$extension" ;;
	esac
done

put_with_libraries "$(command -v modprobe)"

cp "$sluice" "$root/usr/bin/sluice"
chmod 755 "$root/usr/bin/sluice"
ln -s ../bin/sluice "$root/usr/sbin/ipvsadm"

printf 'root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"

# Which packages the files are of. A file may be known by the name it had before
# the directories were merged.
while read -r file; do
	dpkg -S "$file" 2>/dev/null || dpkg -S "${file#/usr}" 2>/dev/null || echo "unknown: $file"
done <"$copied" | sed 's/: .*//; s/:.*//' | sort -u | while read -r package; do
	if [ "$package" = unknown ]; then
		echo "$0: a file is of no Debian package" >&2
		exit 1
	fi
	dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
	if [ -e "/usr/share/doc/$package/copyright" ]; then
		mkdir -p "$root/usr/share/doc/$package"
		cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
	fi
done

(cd "$root" && find . -type f -printf '%10s  %P\n' -o -type l -printf '%10s  %P -> %l\n' | sort -k2)
(cd "$root" && find . -type f -printf '%s\n' | awk '{bytes += $1} END {printf "%10d  bytes in %d files\n", bytes, NR}')
