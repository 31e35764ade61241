package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
)

// Where a program can run.
const (
	modeAuto   = "auto"
	modeGuest  = "guest"
	modeNative = "native"
)

// cpuAuto picks a processor no other lab has, cpuAll does not pin at all.
const (
	cpuAuto = "auto"
	cpuAll  = "all"
)

// options is the parsed command line.
type options struct {
	mem       string
	cpu       string
	timeout   time.Duration
	verbose   bool
	companion string
	mode      string
	kernel    string
	program   []string
}

// parseOptions reads lab's own flags; the first argument that is not a flag
// starts the program, whose flags are left alone.
func parseOptions(args []string, usage io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.Usage = func() {
		fmt.Fprintln(usage, "usage: lab [flags] program [args...]")
		fs.PrintDefaults()
	}
	fs.StringVar(&o.mem, "mem", "4G", "the guest's `memory`")
	fs.StringVar(&o.cpu, "cpu", cpuAuto, "processor `number` to pin the guest to, 3 times faster than not to; auto: one no other lab has; all: do not pin")
	fs.DurationVar(&o.timeout, "timeout", 30*time.Minute, "kill the program after this time; 0: never")
	fs.BoolVar(&o.verbose, "v", false, "show the guest's boot log and times on stderr")
	fs.StringVar(&o.companion, "companion", "", "host `command` to run beside the program, at 192.0.2.1 (the guest is 192.0.2.2); the program waits for its $SLUICE_LAB_SHARED/ready")
	fs.StringVar(&o.mode, "mode", modeAuto, "guest, native (namespaces on the host) or auto: native if this is root and the kernel has IPVS")
	fs.StringVar(&o.kernel, "kernel", "linux.uml", "User-Mode-Linux `binary`")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.program = fs.Args()
	return o, o.validate()
}

func (o options) validate() error {
	if len(o.program) == 0 {
		return errors.New("no program given")
	}
	if !regexp.MustCompile(`^[1-9][0-9]*[kKmMgG]$`).MatchString(o.mem) {
		return fmt.Errorf("-mem %q: want a number and k, M or G", o.mem)
	}
	if o.cpu != cpuAuto && o.cpu != cpuAll {
		if n, err := strconv.Atoi(o.cpu); err != nil || n < 0 {
			return fmt.Errorf("-cpu %q: want a processor number, auto or all", o.cpu)
		}
	}
	switch o.mode {
	case modeAuto, modeGuest, modeNative:
		return nil
	}
	return fmt.Errorf("-mode %q: want auto, guest or native", o.mode)
}
