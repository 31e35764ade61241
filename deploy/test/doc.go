// Package test renders what is under deploy the ways that users do, with
// Kustomize's and Helm's own libraries, and judges it: the chart makes the
// objects of the base, every object is one of the API, and what is allowed is
// what is needed. It is a module of its own, so that these libraries never enter
// the agent's dependencies.
package test
