package main

import "testing"

func TestOldRelease(t *testing.T) {
	for release, old := range map[string]bool{
		"4.19.0-27-amd64": true, "5.4.0": true, "5.8.18-100.fc31": true,
		"5.9.0": false, "5.10.0-30-amd64": false, "6.1.0": false, "6.18.44+": false, "what": false,
	} {
		if got := oldRelease(release) != ""; got != old {
			t.Errorf("%s: old %v, want %v", release, got, old)
		}
	}
}
