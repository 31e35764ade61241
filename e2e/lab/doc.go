// Command lab runs a program where real IPVS exists. It is meant for
//
//	go test -exec 'lab [flags]'
//
// and behaves like the program itself: same arguments, working directory,
// output bytes and exit status.
//
// Where the caller is root and the host's kernel has IPVS, the program runs in
// a fresh network and mount namespace. Elsewhere lab boots a User-Mode-Linux
// guest on the host's own file tree, with itself as the guest's init:
//
//	host                                     guest (linux.uml, a child process)
//	lab ── spec ────────────────────────────► lab as pid 1
//	    ◄─ stdout, stderr: files on hostfs ──   └─ program
//	    ◄─ status ──────────────────────────
//	    companion ◄───── tap 192.0.2.0/30 ──►   vec0
//
// What the guest writes goes to an overlay in its memory and never reaches the
// host, but for the shared directory, $SLUICE_LAB_OUT and the places the
// -test.coverprofile family names.
//
// The program finds SLUICE_LAB (guest or native) and SLUICE_LAB_SHARED in its
// environment; of the caller's it sees SLUICE_*, GO*, PATH, HOME, CI and TERM,
// in both modes, so that a test cannot come to need more in one of them.
//
// Exit status: the program's own (128+n when signal n killed it); 124 when the
// timeout struck, 125 when lab itself failed, 128+n when lab got signal n.
//
// The program has no stdin. Not in a guest: the race detector, whose memory
// layout needs more address space than its kernel has; a second processor;
// nf_tables. On a processor with AMX a guest needs cc to boot, see xstate.
//
// lab is not a sandbox: the guest reads whatever the caller can read.
package main
