package ipvsadm

import "strings"

// takes is what stands behind an option.
type takes uint8

const (
	nothing takes = iota
	value
	perhaps // a value, unless the next argument begins with "-"
)

// arguments takes a command line apart by libpopt's rules:
//
//   - Short options stand alone or together (-Ln); the last of them may have
//     its value in the same argument (-t10.0.0.1:80, -t=10.0.0.1:80) or in the
//     next. Long options have it behind "=" or in the next argument. They are
//     not abbreviated.
//   - A value is taken whatever it looks like.
//   - Everything that is no option is left for the end, as is everything
//     behind "--".
type arguments struct {
	rest     []string // not looked at yet
	last     string   // the argument looked at last, which errors name
	short    string   // what is left of an argument of short options
	ended    bool     // "--" was there
	leftover []string // what is no option
}

// badOption is why libpopt stops.
type badOption struct{ argument, reason string }

func (b badOption) Error() string { return b.argument + ": " + b.reason }

// given is an option of the command line.
type given struct {
	*option
	value    string
	hasValue bool
}

// next is the next option; nil when there is none left.
func (a *arguments) next() (*given, error) {
	for a.short == "" {
		if len(a.rest) == 0 {
			return nil, nil //nolint:nilnil // the end of options is no error
		}
		word := a.take()
		switch {
		case a.ended || !strings.HasPrefix(word, "-") || word == "-":
			a.leftover = append(a.leftover, word)
		case word == "--":
			a.ended = true
		case strings.HasPrefix(word, "--"):
			name, text, has := strings.Cut(word[2:], "=")
			return a.option(findLong(name), text, has)
		default:
			a.short = word[1:]
		}
	}
	found := findShort(a.short[0])
	a.short = a.short[1:]
	if found == nil || found.takes == nothing {
		equals := strings.HasPrefix(a.short, "=")
		return a.option(found, "", equals)
	}
	text, has := strings.TrimPrefix(a.short, "="), a.short != ""
	a.short = ""
	return a.option(found, text, has)
}

func (a *arguments) take() string {
	a.last, a.rest = a.rest[0], a.rest[1:]
	return a.last
}

// option gives an option that was found its value.
func (a *arguments) option(found *option, text string, has bool) (*given, error) {
	switch {
	case found == nil:
		return nil, badOption{a.last, "unknown option"}
	case found.takes == nothing && has:
		return nil, badOption{a.last, "option does not take an argument"}
	case found.takes == nothing || has:
		return &given{found, text, has}, nil
	case len(a.rest) == 0 && found.takes == value:
		return nil, badOption{a.last, "missing argument"}
	case len(a.rest) == 0 || found.takes == perhaps && strings.HasPrefix(a.rest[0], "-"):
		return &given{option: found}, nil
	}
	return &given{found, a.take(), true}, nil
}
