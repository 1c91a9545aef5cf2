package main

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// refusal is why a bundle is INVALID; it travels as a panic to the top.
type refusal string

func refuse(format string, a ...any) { panic(refusal(fmt.Sprintf(format, a...))) }

func demand(ok bool, format string, a ...any) {
	if !ok {
		refuse(format, a...)
	}
}

type (
	// record is a JSON object, each name once.
	record map[string]any
	// digits is a JSON number as it is written.
	digits string
)

const deepest = 64

// parser reads JSON by the letter of RFC 8259, and no name twice.
type parser struct {
	text string
	at   int
}

// parseJSON gives nil, bool, digits, string, []any or record.
func parseJSON(text []byte, what string) any {
	demand(utf8.Valid(text), "%s is not UTF-8", what)
	p := &parser{text: string(text)}
	v := p.value(0)
	p.space()
	demand(p.at == len(p.text), "%s goes on after its end", what)
	return v
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) skip(token string) bool {
	if strings.HasPrefix(p.text[p.at:], token) {
		p.at += len(token)
		return true
	}
	return false
}

func (p *parser) need(token string) {
	p.space()
	demand(p.skip(token), "JSON: no %q at byte %d", token, p.at)
}

func (p *parser) value(depth int) any {
	demand(depth < deepest, "JSON is nested too deeply")
	p.space()
	switch {
	case p.skip("null"):
		return nil
	case p.skip("true"):
		return true
	case p.skip("false"):
		return false
	case p.skip("{"):
		return p.object(depth)
	case p.skip("["):
		items := []any{}
		for p.space(); !p.skip("]"); p.space() {
			if len(items) > 0 {
				p.need(",")
			}
			items = append(items, p.value(depth+1))
		}
		return items
	case p.skip(`"`):
		return p.quoted()
	}
	return p.number()
}

func (p *parser) object(depth int) record {
	r := record{}
	for p.space(); !p.skip("}"); p.space() {
		if len(r) > 0 {
			p.need(",")
		}
		p.need(`"`)
		name := p.quoted()
		_, twice := r[name]
		demand(!twice, "JSON: %q stands twice", short(name))
		p.need(":")
		r[name] = p.value(depth + 1)
	}
	return r
}

func (p *parser) number() any {
	start := p.at
	run := func() int {
		from := p.at
		for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
			p.at++
		}
		return p.at - from
	}
	p.skip("-")
	first := p.at
	n := run()
	ok := n == 1 || n > 1 && p.text[first] != '0'
	if ok && p.skip(".") {
		ok = run() > 0
	}
	if ok && (p.skip("e") || p.skip("E")) {
		if !p.skip("+") {
			p.skip("-")
		}
		ok = run() > 0
	}
	demand(ok, "JSON: no value at byte %d", start)
	return digits(p.text[start:p.at])
}

func (p *parser) quoted() string {
	var b strings.Builder
	for {
		demand(p.at < len(p.text), "JSON ends in a string")
		c := p.text[p.at]
		p.at++
		switch {
		case c == '"':
			return b.String()
		case c < ' ':
			refuse("JSON: a control character in a string")
		case c != '\\':
			b.WriteByte(c)
		case p.skip("u"):
			r := rune(p.unit())
			if utf16.IsSurrogate(r) {
				demand(p.skip(`\u`), "JSON: half a surrogate pair")
				r = utf16.DecodeRune(r, rune(p.unit()))
				demand(r != utf8.RuneError, "JSON: half a surrogate pair")
			}
			b.WriteRune(r)
		default:
			demand(p.at < len(p.text), "JSON ends in a string")
			i := strings.IndexByte(`"\/bfnrt`, p.text[p.at])
			demand(i >= 0, "JSON: no such escape")
			b.WriteByte("\"\\/\b\f\n\r\t"[i])
			p.at++
		}
	}
}

// unit is four hexadecimal digits.
func (p *parser) unit() uint64 {
	demand(p.at+4 <= len(p.text), "JSON ends in a string")
	n, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 16)
	demand(err == nil, "JSON: no such escape")
	p.at += 4
	return n
}

func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// fields says that v is an object with exactly these names.
func fields(v any, what string, names ...string) record {
	r, ok := v.(record)
	demand(ok, "%s is not an object", what)
	for _, name := range names {
		_, there := r[name]
		demand(there, "%s has no %q", what, name)
	}
	if len(r) != len(names) {
		for name := range r {
			known := false
			for _, n := range names {
				known = known || n == name
			}
			demand(known, "%s has an unknown field %q", what, short(name))
		}
	}
	return r
}

func text(v any, what string) string {
	s, ok := v.(string)
	demand(ok, "%s is not a string", what)
	return s
}

func truth(v any, what string) bool {
	b, ok := v.(bool)
	demand(ok, "%s is neither true nor false", what)
	return b
}

func list(v any, what string) []any {
	l, ok := v.([]any)
	demand(ok, "%s is not a list", what)
	return l
}

// integer is a whole number between low and high.
func integer(v any, what string, low, high int) int {
	d, ok := v.(digits)
	demand(ok, "%s is not a whole number", what)
	n, err := strconv.ParseInt(string(d), 10, 64)
	demand(err == nil && d != "-0", "%s is not a whole number", what)
	demand(n >= int64(low) && n <= int64(high), "%s is out of range", what)
	return int(n)
}

// largest is what sides and numbers of entries are at most.
const largest = 1 << 26

// widestLayer is how many entries the input and what comes out of maps have at most.
const widestLayer = 1 << 24

func pair(v any, what string, low int) [2]int {
	l := list(v, what)
	demand(len(l) == 2, "%s is not a pair", what)
	return [2]int{integer(l[0], what, low, largest), integer(l[1], what, low, largest)}
}

func sizes(v any, what string) []int {
	l := list(v, what)
	demand(len(l) >= 1 && len(l) <= 8, "%s is not a shape", what)
	s := make([]int, len(l))
	for i := range l {
		s[i] = integer(l[i], what, 1, largest)
	}
	demand(entries(s, what) <= widestLayer, "%s: too many entries", what)
	return s
}

// entries is the product of sides, at most 2^26.
func entries(shape []int, what string) int {
	n := 1
	for _, side := range shape {
		demand(side >= 0 && side <= largest, "%s: a side is out of range", what)
		n *= side
		demand(n <= largest, "%s: too many entries", what)
	}
	return n
}

// claim is a float64 number >= 0 in hexadecimal form, as an exact fraction.
func claim(v any, what string) *big.Rat {
	s := text(v, what)
	bad := func(ok bool) { demand(ok, "%s is not a number >= 0 in hexadecimal form", what) }
	bad(len(s) < 40 && len(s) > 2 && s[0] == '0' && s[1] == 'x')
	p := strings.IndexByte(s, 'p')
	bad(p > 0)
	before, after := s[2:p], ""
	if point := strings.IndexByte(before, '.'); point >= 0 {
		before, after = before[:point], before[point+1:]
	}
	mantissa := before + after
	bad(mantissa != "" && before != "" && strings.Trim(mantissa, "0123456789abcdef") == "")
	exponent := s[p+1:]
	if exponent != "" && (exponent[0] == '+' || exponent[0] == '-') {
		exponent = exponent[1:]
	}
	bad(exponent != "" && len(exponent) < 6 && strings.Trim(exponent, "0123456789") == "")
	n, err := strconv.Atoi(s[p+1:])
	m, ok := new(big.Int).SetString(mantissa, 16)
	bad(err == nil && ok)
	r := times2(new(big.Rat).SetInt(m), n-4*len(after))
	f, exact := r.Float64()
	bad(exact && !math.IsInf(f, 0))
	return r
}
