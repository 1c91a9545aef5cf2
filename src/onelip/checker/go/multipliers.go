package main

import (
	"math/big"
	"math/bits"
)

// neurons are a matrix and what is applied to each entry after it.
type neurons struct {
	matrix *dense
	slope  func(int) *big.Rat
}

// plain is a map and an activation as neurons, or nil.
func plain(m linear, a *activation) *neurons {
	d, ok := m.(*dense)
	if !ok || a.slope == nil {
		return nil
	}
	return &neurons{d, a.slope}
}

// condition is a multiplier count 2^e >= 0 for one neuron, whose slopes are between 1 and slope 2^-places.
type condition struct {
	count, slope int64
	e, places    int
}

const (
	countBits  = 24 // of multipliers: more are rounded upwards
	slopeBits  = 28 // of slopes: more are rounded away from 1,
	mostPlaces = 36 // and so is what is behind 2^-36
)

// readMethod shows that a number is a Lipschitz constant of the network.
func (b *bundle) readMethod(v any, bound *big.Rat) {
	const what = "the method"
	r, ok := v.(record)
	demand(ok, "%s is not an object", what)
	demand(r["kind"] == "multipliers", "%s is of an unknown kind", what)
	names := list(fields(v, what, "kind", "weights")["weights"], what)
	demand(len(names) == len(b.blocks) && len(names) > 0, "%s: not multipliers for each block", what)
	f := &form{c: bound}
	for i, part := range b.blocks {
		demand(part.plain != nil, "%s: block %d is not one matrix and a leaky-relu", what, i)
		f.matrices = append(f.matrices, part.plain.matrix.weight)
		f.conditions = append(f.conditions, conditions(b.numbers(names[i], what), part.plain, what))
	}
	ok = len(b.last) == 1
	if ok {
		var d *dense
		if d, ok = b.last[0].(*dense); ok {
			f.matrices = append(f.matrices, d.weight)
		}
	}
	demand(ok, "%s: the network does not end in one matrix", what)
	f.show(what)
}

// conditions are those of the neurons. All multipliers >= 0 are valid; larger ones leave the part of the form to the
// last matrix positive.
func conditions(t *tensor, of *neurons, what string) []condition {
	rows := of.matrix.a.rows
	demand(len(t.shape) == 1 && t.shape[0] == rows, "%s: not a multiplier for each row of its matrix", what)
	all := make([]condition, rows)
	for i := range all {
		m, e := t.at(i)
		demand(m >= 0, "%s: a multiplier is negative", what)
		if cut := bits.Len64(uint64(m)) - countBits; cut > 0 {
			m, e = (m-1)>>uint(cut)+1, e+cut
		}
		slope, places := outwards(of.slope(i), what)
		all[i] = condition{m, slope, e, places}
	}
	return all
}

// outwards is a slope as m 2^-places, not nearer to 1.
func outwards(slope *big.Rat, what string) (m int64, places int) {
	// The denominator is a power of 2: |slope| is 0 or in [2^n, 2^(n + 1)).
	n := slope.Num().BitLen() - slope.Denom().BitLen()
	demand(n < slopeBits, "%s: too steep a slope", what)
	places = least(slopeBits-1-n, mostPlaces)
	s := times2(slope, places)
	if slope.Cmp(whole(1)) < 0 {
		return floor(s).Int64(), places
	}
	return -floor(s.Neg(s)).Int64(), places
}
