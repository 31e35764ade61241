package convert

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

var errNotCommunity = errors.New("is not a community")

// largePrefix marks a large community in the list of the others, as in MetalLB.
const largePrefix = "large:"

// Advertisement is a BGPAdvertisement. A value left out would tell routes to
// more peers than was meant, or without the community that keeps them from
// going further; so with one that cannot be used nothing is told.
func Advertisement(a *v1alpha1.BGPAdvertisement) (ad model.Advertisement, ok bool, problems []model.Problem) {
	r := newReport(BGPAdvertisementKind, &a.ObjectMeta)
	s := &a.Spec
	ad = model.Advertisement{
		Name:          a.Name,
		UID:           string(a.UID),
		Created:       a.CreationTimestamp.Time,
		Pools:         names(s.AddressPools, "spec.addressPools", r),
		PoolSelectors: selectors(s.AddressPoolSelectors, "spec.addressPoolSelectors", r),
		Services:      selectors(s.ServiceSelectors, "spec.serviceSelectors", r),
		Nodes:         selectors(s.NodeSelectors, "spec.nodeSelectors", r),
		Peers:         names(s.Peers, "spec.peers", r),
		Length4:       length(s.AggregationLength, "spec.aggregationLength", 32, r),
		Length6:       length(s.AggregationLengthV6, "spec.aggregationLengthV6", 128, r),
		KeepEmpty:     s.KeepWithoutEndpoints,
	}
	ad.Communities, ad.LargeCommunities = communities(s, r)
	if s.LocalPref != nil {
		ad.LocalPref = metric(*s.LocalPref, "spec.localPref", r)
	}
	if s.MED != nil {
		ad.MED = new(metric(*s.MED, "spec.med", r))
	}
	if r.count() > 0 {
		return model.Advertisement{}, false, r.list()
	}
	return ad, true, nil
}

func metric(given int64, field string, r *report) uint32 {
	if given < 0 || given > math.MaxUint32 {
		r.add(InvalidMetric, field, given, "is out of range", "use a number from 0 to 4294967295, or remove it")
	}
	return uint32(given)
}

// length reads the length of aggregates; 0: single addresses.
func length(given *int32, field string, most int32, r *report) uint8 {
	if given == nil {
		return 0
	}
	if *given < 1 || *given > most {
		r.add(InvalidLength, field, *given, "is not the length of a prefix", fmt.Sprintf("use a number from 1 to %d, or remove it", most))
	}
	return uint8(*given)
}

// communities reads both lists; large communities may stand in either.
func communities(s *v1alpha1.BGPAdvertisementSpec, r *report) ([]model.Community, []model.LargeCommunity) {
	var short distinct[model.Community]
	var large distinct[model.LargeCommunity]
	for i, given := range s.Communities {
		text, isLarge := strings.CutPrefix(string(given), largePrefix)
		var err error
		if isLarge {
			err = take(&large, text, parseLarge)
		} else {
			err = take(&short, text, parseCommunity)
		}
		if err != nil {
			r.add(InvalidCommunity, fmt.Sprintf("spec.communities[%d]", i), given, err.Error(), `write it as "64512:1", each number up to 65535, or as "large:64512:1:2"`)
		}
	}
	for i, given := range s.LargeCommunities {
		if err := take(&large, strings.TrimPrefix(string(given), largePrefix), parseLarge); err != nil {
			r.add(InvalidCommunity, fmt.Sprintf("spec.largeCommunities[%d]", i), given, err.Error(), `write it as "64512:1:2", each number up to 4294967295`)
		}
	}
	return short.list, large.list
}

// take adds what a text says to a list.
func take[T comparable](list *distinct[T], text string, parse func(string) (T, error)) error {
	v, err := parse(text)
	if err == nil {
		list.add(v)
	}
	return err
}

// parseCommunity reads "64512:1".
func parseCommunity(text string) (model.Community, error) {
	var parts [2]uint32
	if !numbers(text, parts[:], 16) {
		return 0, errNotCommunity
	}
	return model.Community(parts[0]<<16 | parts[1]), nil
}

// parseLarge reads "64512:1:2".
func parseLarge(text string) (c model.LargeCommunity, err error) {
	if !numbers(text, c[:], 32) {
		return model.LargeCommunity{}, errNotCommunity
	}
	return c, nil
}

// numbers reads as many decimal numbers with colons between them as into holds.
func numbers(text string, into []uint32, bits int) bool {
	parts := strings.Split(text, ":")
	if len(parts) != len(into) {
		return false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return false
		}
		into[i] = uint32(n)
	}
	return true
}
