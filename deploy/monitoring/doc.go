// Package monitoring has the alerts and the dashboard, and the test that what
// they ask for exists.
package monitoring
