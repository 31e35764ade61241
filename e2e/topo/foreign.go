package topo

// ForeignServers is a script that makes virtual servers that are not the
// proxy's, one of them at an address where it has some too.
const ForeignServers = `
	ipvsadm -A -t 10.99.0.1:9999 -s wrr -p 60; ipvsadm -a -t 10.99.0.1:9999 -r 10.99.0.9:80 -m -w 3
	ipvsadm -A -u 10.99.0.1:53 -s lc; ipvsadm -A -t 10.96.0.1:9999 -s rr
	ipvsadm -A -f 99 -s rr; ipvsadm -a -f 99 -r 10.99.0.9:0 -m -w 1
`

// foreignRest makes the rest, in every table where the proxy has something,
// before and behind what it will put there.
const foreignRest = `
	iptables -w -N FOREIGN; iptables -w -A FOREIGN -p tcp --dport 9 -j DROP; iptables -w -A INPUT -j FOREIGN
	iptables -w -t nat -N FOREIGN; iptables -w -t nat -A POSTROUTING -s 10.99.0.0/16 -j FOREIGN
	iptables -w -t nat -A PREROUTING -d 10.99.0.2/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.99.0.9:80
	iptables -w -t nat -A OUTPUT -d 10.99.0.2/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.99.0.9:80
	iptables -w -t mangle -N FOREIGN; iptables -w -t mangle -A PREROUTING -d 10.99.0.0/16 -j FOREIGN
	iptables -w -t mangle -A OUTPUT -d 10.99.0.3/32 -j MARK --set-xmark 0x63/0xffffffff
	ip6tables -w -N FOREIGN; ip6tables -w -A FORWARD -j FOREIGN
	ip6tables -w -t nat -N FOREIGN; ip6tables -w -t nat -A POSTROUTING -s fd00:99::/64 -j FOREIGN
	ip6tables -w -t mangle -N FOREIGN; ip6tables -w -t mangle -A PREROUTING -d fd00:99::/64 -j FOREIGN
	ipset create FOREIGN hash:ip; ipset add FOREIGN 10.99.0.7
	ipset create FOREIGN-PORTS hash:ip,port; ipset add FOREIGN-PORTS 10.96.0.1,tcp:9999
	ipset create FOREIGN6 hash:net family inet6; ipset add FOREIGN6 fd00:99::/64
	iptables -w -A INPUT -m set --match-set FOREIGN src -j DROP
	ip link add foreign0 type dummy; ip link set foreign0 addrgenmode none; ip addr add 10.99.0.1/32 dev foreign0
	ip addr add fd00:99::1/128 dev foreign0 nodad; ip link set foreign0 up
`

// Furnish gives a node what others than the proxy have in its tables: virtual
// servers, chains and rules of every table, sets, addresses. Nothing of the
// proxy's may ever touch it. The device has no link-local address, which would be
// tentative for a moment. The kernel is also told to report every refusal:
// tests make more of them in a second than it would otherwise speak of.
func (h *Host) Furnish() error {
	for _, name := range []string{"net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"} {
		if err := h.Sysctl(name, "0"); err != nil {
			return err
		}
	}
	_, err := h.Tool("sh", "-ec", ForeignServers+foreignRest)
	return err
}
