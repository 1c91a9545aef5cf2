package main

import (
	"math/big"
	"reflect"
	"strings"
	"testing"
)

func TestJSONIsReadByTheLetter(t *testing.T) {
	v := parseJSON([]byte(` {"a":[1,-2.5e3,true,false,null,{}],"b":"\u00e9\ud83d\ude00\n/"} `), "it")
	want := record{"a": []any{digits("1"), digits("-2.5e3"), true, false, nil, record{}}, "b": "é😀\n/"}
	if !reflect.DeepEqual(v, want) {
		t.Fatal(v)
	}
	for _, s := range []string{
		"", " ", "{", "[1,]", "[,1]", "[1 2]", `{"a":1,}`, `{"a":1 "b":2}`, `{,"a":1}`, `{"a"}`, `{a:1}`, `{"a":1,"a":1}`, `{"a":1,"\u0061":2}`,
		"01", "1.", ".5", "+1", "-", "1e", "NaN", "Infinity", "-Infinity", "nul", "True", "1 1", "{}x", "'a'", `"a`, `"\x"`, `"\u12"`, `"\ud800"`, `"\ud800\u0041"`,
		"\"\x01\"", "\"\xff\"", "\ufeff{}", "[1]//", "/**/1", strings.Repeat("[", 100) + strings.Repeat("]", 100), strings.Repeat("[", 1<<20), "\x00", "{}\x00",
	} {
		if !refused(func() { parseJSON([]byte(s), "it") }) {
			t.Errorf("read %.40q", s)
		}
	}
}

func TestFieldsAreTheseAndNoOthers(t *testing.T) {
	v := record{"a": nil, "b": nil}
	if refused(func() { fields(v, "it", "a", "b") }) {
		t.Fatal("refused")
	}
	for _, names := range [][]string{{"a"}, {"a", "b", "c"}, {"a", "c"}, {"A", "b"}, {}} {
		if !refused(func() { fields(v, "it", names...) }) {
			t.Fatal(names)
		}
	}
}

func TestClaims(t *testing.T) {
	for s, want := range map[string]string{
		"0x1.8p+1": "3", "0x0.0p+0": "0", "0x1p-2": "1/4", "0x0.8p1": "1", "0x1.p0": "1", "0x10p0": "16", "0x1.0000000000000p+0": "1",
		"0x00001.80000000000000000p+1": "3", "0x0p99999": "0",
	} {
		if r, _ := new(big.Rat).SetString(want); claim(s, "it").Cmp(r) != 0 {
			t.Error(s, claim(s, "it"))
		}
	}
	if claim("0x0.0000000000001p-1022", "it").Cmp(times2(whole(1), -1074)) != 0 || claim("0x1.fffffffffffffp+1023", "it").Sign() <= 0 {
		t.Error("extremes")
	}
	for _, v := range []any{
		nil, digits("1"), true, "", "0x", "1", "0x1", "1p0", "0xp0", "0x.p0", "0x1p", "0x1p+", "0x1p+-1", "0x1p++1", "0x1.8.0p0", "-0x1p0", "+0x1p0", "-0x0p0",
		"0x1p1024", "0x1.ffffffffffffffp+1023", "0x1p-1075", "0x1.00000000000001p0", " 0x1p0", "0x1p0 ", "0x1_0p0", "0x1p1_0", "0x1p0\n", "nan", "inf", "0xinfp0",
		"0x1.00000000000000000000000000000000000p0", "0x1p999999999", "0x1p-999999999", "0x1p0x1", "0x1P1P1", "0x1p٣",
	} {
		if !refused(func() { claim(v, "it") }) {
			t.Errorf("a claim: %v", v)
		}
	}
}

func TestWholeNumbersHaveNoPoint(t *testing.T) {
	for _, v := range []any{digits("1.0"), digits("1e0"), digits("-0"), digits("-1"), digits("9"), digits("99999999999999999999"), true, "1", nil} {
		if !refused(func() { integer(v, "it", 0, 8) }) {
			t.Error(v)
		}
	}
	for _, v := range []any{[]any{}, []any{digits("0")}, []any{digits("67108864"), digits("2")}, []any{digits("1"), digits("1"), digits("1"), digits("1"), digits("1"), digits("1"), digits("1"), digits("1"), digits("1")}} {
		if !refused(func() { sizes(v, "it") }) {
			t.Error(v)
		}
	}
}
