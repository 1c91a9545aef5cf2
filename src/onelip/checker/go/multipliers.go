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

// condition is a multiplier count 2^e >= 0 for one neuron, whose slopes are between 1 and slope / 2^slopeBits.
type condition struct {
	count, slope int64
	e            int
}

const (
	countBits = 12
	slopeBits = 12
	steepest  = 1 << 32 // of slopes in units of 2^-slopeBits
)

// readMethod shows that a number is a Lipschitz constant of the network.
func (b *bundle) readMethod(v any, bound *big.Rat) {
	const what = "the method"
	r, ok := v.(record)
	demand(ok, "%s is not an object", what)
	demand(r["kind"] == "multipliers", "%s is of an unknown kind", what)
	names := list(fields(v, what, "kind", "weights")["weights"], what)
	demand(len(names) == len(b.blocks), "%s: another number of multipliers than blocks", what)
	f := &form{c: bound}
	for i, part := range b.blocks {
		demand(part.plain != nil, "%s: block %d is not one matrix and a leaky-relu", what, i)
		f.matrices = append(f.matrices, part.plain.matrix.weight)
		f.conditions = append(f.conditions, conditions(b.tensor(names[i], what), part.plain, what))
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

// conditions rounds multipliers down and slopes away from 1.
func conditions(t *tensor, of *neurons, what string) []condition {
	rows := of.matrix.a.rows
	demand(len(t.shape) == 1 && t.shape[0] == rows, "%s: not a multiplier for each row of its matrix", what)
	all := make([]condition, rows)
	for i := range all {
		m, e := t.at(i)
		demand(m >= 0, "%s: a multiplier is negative", what)
		if cut := bits.Len64(uint64(m)) - countBits; cut > 0 {
			m, e = m>>uint(cut), e+cut
		}
		all[i] = condition{m, outwards(of.slope(i), what), e}
	}
	return all
}

// outwards is a slope in units of 2^-slopeBits, not nearer to 1.
func outwards(slope *big.Rat, what string) int64 {
	s := times2(slope, slopeBits)
	var n *big.Int
	if slope.Cmp(whole(1)) < 0 {
		n = floor(s)
	} else {
		n = floor(s.Neg(s))
		n.Neg(n)
	}
	demand(n.CmpAbs(big.NewInt(steepest)) <= 0, "%s: too steep a slope", what)
	return n.Int64()
}
