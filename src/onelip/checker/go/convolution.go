package main

import "math/big"

// convolution is torch's conv2d from images of one shape to images of another.
type convolution struct {
	norm             *big.Rat
	weight           grid
	wide             [4]int // out, in / groups, k, m
	groups           int
	stride, pad, gap [2]int
	circular         bool
	from, to         [3]int
	reads            [2][]int32 // per axis: for place and tap the pixel that is read, or -1
	witness          string
}

func image(shape []int, what string) [3]int {
	demand(len(shape) == 3, "%s: not an image of channels, height and width", what)
	return [3]int{shape[0], shape[1], shape[2]}
}

// newConvolution reads a record and its weight, without proving its norm; bias is for the caller.
func (b *bundle) newConvolution(v any, input []int, what string) *convolution {
	f := fields(v, what, "map", "norm", "weight", "bias", "stride", "padding", "dilation", "groups", "circular", "witness")
	demand(text(f["map"], what) == "convolution", "%s is not a convolution", what)
	c := &convolution{norm: claim(f["norm"], what), from: image(input, what)}
	t := b.numbers(f["weight"], what)
	demand(len(t.shape) == 4 && t.length() > 0, "%s: no kernel of four axes", what)
	copy(c.wide[:], t.shape)
	c.groups = integer(f["groups"], what, 1, largest)
	c.stride, c.pad, c.gap = pair(f["stride"], what, 1), pair(f["padding"], what, 0), pair(f["dilation"], what, 1)
	c.circular, c.witness = truth(f["circular"], what), text(f["witness"], what)
	demand(c.wide[0]%c.groups == 0 && c.wide[1]*c.groups == c.from[0], "%s: channels and groups do not fit", what)
	c.to[0] = c.wide[0]
	for a := range c.reads {
		size, taps, pad, gap := c.from[a+1], c.wide[a+2], c.pad[a], c.gap[a]
		span := size + 2*pad - gap*(taps-1) - 1
		demand(span >= 0, "%s: the kernel is larger than the image", what)
		demand(!c.circular || pad <= size, "%s: more circular padding than image", what)
		out := span/c.stride[a] + 1
		demand(out <= largest && out*taps <= 1<<22, "%s: an axis is too large", what)
		c.to[a+1] = out
		c.reads[a] = make([]int32, out*taps)
		for o := 0; o < out; o++ {
			for k := 0; k < taps; k++ {
				p := o*c.stride[a] + k*gap - pad
				if c.circular {
					p = (p + size) % size
				}
				if p < 0 || p >= size {
					p = -1
				}
				c.reads[a][o*taps+k] = int32(p)
			}
		}
	}
	demand(entries(c.to[:], what) <= widestLayer, "%s: too many entries", what)
	c.weight = t.onGridWhere(c.used())
	return c
}

// used says which entries of the kernel ever meet a pixel; the others do not count.
func (c *convolution) used() func(int) bool {
	var met [2][]bool
	for a, reads := range c.reads {
		taps := c.wide[a+2]
		met[a] = make([]bool, taps)
		for n, p := range reads {
			met[a][n%taps] = met[a][n%taps] || p >= 0
		}
	}
	k, m := c.wide[2], c.wide[3]
	return func(i int) bool { return met[0][i/m%k] && met[1][i%m] }
}

// overlap is the largest number of taps, over all places, that read one pixel.
func (c *convolution) overlap() int {
	product := 1
	for a, reads := range c.reads {
		seen := make([]int, c.from[a+1])
		most := 0
		for _, p := range reads {
			if p >= 0 {
				seen[p]++
				if seen[p] > most {
					most = seen[p]
				}
			}
		}
		product *= most
	}
	return product
}

// off is what the rounding of the kernel can do to the map at most, in norm.
func (c *convolution) off() upper { return c.weight.off.times(rootOfWhole(c.overlap())) }

// prove shows that the norm is at most what is claimed, by the witness.
func (c *convolution) prove(what string) string {
	var ok bool
	var how string
	switch c.witness {
	case "matrix":
		n := entries(c.from[:], what) * entries(c.to[:], what)
		demand(n <= 1<<25, "%s: too large to be written out", what)
		ok, how = c.byMatrix(), "written out"
	case "torus":
		ok, how = c.byTorus(what)
	case "kernel":
		ok, how = c.byKernel(), "kernel as a matrix"
	default:
		refuse("%s: an unknown witness", what)
	}
	demand(ok, "%s: its norm is not shown to be at most what is claimed", what)
	return how
}

// perGroup is the number of entries of a group's part of the kernel.
func (c *convolution) perGroup() int { return len(c.weight.m) / c.groups }

// byKernel: |A x|^2 is the sum of |W patch|^2 over places, and patches have each pixel so many times.
func (c *convolution) byKernel() bool {
	rows, size := c.wide[0]/c.groups, c.perGroup()
	overlap := c.overlap()
	if overlap == 0 {
		return true
	}
	// c / sqrt(overlap), rounded down.
	room := new(big.Rat).Quo(c.norm, rootOfWhole(overlap).fraction())
	for g := 0; g < c.groups; g++ {
		a := matrix{rows, size / rows, c.weight.m[g*size : (g+1)*size], c.weight.e}
		if !a.below(room, c.weight.off) {
			return false
		}
	}
	return true
}

// byMatrix writes the map out, pixel after pixel, so that small kernels give bands.
func (c *convolution) byMatrix() bool {
	outs, ins := c.wide[0]/c.groups, c.wide[1]
	taps := [2]int{c.wide[2], c.wide[3]}
	rows, cols := outs*c.to[1]*c.to[2], ins*c.from[1]*c.from[2]
	spend(c.groups, c.to[1]*c.to[2], taps[0]*taps[1], outs*ins)
	for g := 0; g < c.groups; g++ {
		kernel := c.weight.m[g*c.perGroup():]
		sums := make([]int64, rows*cols) // at most 2^12 taps at one entry
		demand(taps[0]*taps[1] <= 1<<12, "a kernel with too many taps to be written out")
		for y := 0; y < c.to[1]; y++ {
			for x := 0; x < c.to[2]; x++ {
				for k := 0; k < taps[0]; k++ {
					for l := 0; l < taps[1]; l++ {
						p, q := int(c.reads[0][y*taps[0]+k]), int(c.reads[1][x*taps[1]+l])
						if p < 0 || q < 0 {
							continue
						}
						for o := 0; o < outs; o++ {
							row := sums[((y*c.to[2]+x)*outs+o)*cols:]
							for i := 0; i < ins; i++ {
								row[(p*c.from[2]+q)*ins+i] += kernel[((o*ins+i)*taps[0]+k)*taps[1]+l]
							}
						}
					}
				}
			}
		}
		fitted := refitted(sums, c.weight.e)
		a := matrix{rows, cols, fitted.m, fitted.e}
		if !a.below(c.norm, c.off().plus(fitted.off)) {
			return false
		}
	}
	return true
}

// refitted is numbers below 2^63 in absolute value on a grid that fits.
func refitted(m []int64, e int) grid {
	most := 0
	for _, x := range m {
		if n := reach(x, 0); n > most {
			most = n
		}
	}
	if most <= precise {
		return grid{m, e, nothing()}
	}
	sums := make([]wide, len(m))
	for i, x := range m {
		sums[i] = widen(x)
	}
	return settled(sums, e)
}
