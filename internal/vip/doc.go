// Package vip is the reconcile target for the addresses of Services: what makes
// packets for them be delivered on this node, where IPVS takes them up; and, as
// a table of its own, for the aggregates of such addresses that routers are told
// (Discards).
//
// # What an address is
//
//	IPv4   the address /32 on our dummy device, scope host, and
//	       local ADDR dev sluice0 table local proto kernel scope host src NODE
//	IPv6   local ADDR dev sluice0 table local proto kernel metric 1 src NODE
//
// The route is what delivers packets; its source is what the node itself uses
// when it talks to the Service. Without it that would be the Service's address,
// and nothing on another node could answer (kube-proxy has to masquerade such
// traffic to repair it).
//
// In IPv4 the kernel makes the local route together with the address, and we
// replace it. In IPv6 that is not possible: the kernel's own route has metric
// 0, no other can be preferred to it, and it is put in by a work queue some
// time after the address, so that it cannot be deleted reliably either. But the
// route alone does all that is needed (delivery, source, answers to ping), so
// an IPv6 address is its route and is not seen in "ip address". It thus never
// becomes the source of other traffic, needs no duplicate address detection,
// and is there when the write returns.
//
// Scope host keeps the IPv4 addresses from being chosen as source by anything
// that asks a device for an address, as MASQUERADE does on an interface that
// has none. ARP does not look at it.
//
// The device is up: IPv6 routes demand it, and IPv4 does not mind. It has no
// link-local address and answers nothing by itself.
//
// # What a discard route is
//
//	blackhole PREFIX proto 115 metric 4278198272
//
// Routers that were told an aggregate send what is for any of its addresses.
// Those of Services are delivered by their own routes, which are in table local
// and longer; for the others the host would follow its default route, back to
// the router, until the TTL has run out. Another route that is longer is
// followed, and so is one to the very prefix that comes later, since its metric
// is better. Where one is there already, ours is not made, and that is an error.
//
// # What is ours
//
// The device by its name, provided that it is a dummy, with every address on it
// and every local route to it; and in the main table of both families every
// route that is a blackhole, has protocol 115 and has metric 4278198272 (all
// three). Nothing else is touched. Removing the device is a verb of its own, for
// cleaning up.
//
// # What the kernel does by itself
//
// An IPv4 address that goes leaves its replaced route behind, so both are
// deleted; the last one takes all IPv4 routes of the device with it.
// A route stays when the source goes from the node; it is replaced when the
// Service's wish follows. Taking the device down and up again adds IPv4 routes
// of the kernel's behind ours, where they are not used, and drops all IPv6
// ones; the next audit puts them back.
//
// It is not for announcing addresses to neighbours or routers.
package vip
