// Package image runs Sluice's image as a container runtime would, in the lab: in
// the root that deploy/image/rootfs.sh has assembled, with the mounts and the
// capabilities that the manifests under deploy name and no others, on one node of
// a topology with pods. No container engine is needed: a jail does what one would
// do to the kernel.
package image
