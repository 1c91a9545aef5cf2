#!/bin/sh
# Compile the proofs beside this file, and refuse any axiom but those of Coq's real numbers.
set -eu
cd "$(dirname "$0")"
if ! command -v coqc >/dev/null; then
    echo "no coqc here, no proof is checked"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp ./*.v "$work"
cd "$work"
for name in Vectors Norms Maps Groups Kernel Network Valid; do
    coqc -q -Q . Onelip "$name.v" >"$name.out"
done
# the last file prints its axioms, and nothing else; what they say is indented
allowed='ClassicalDedekindReals\.sig_(not|forall)_dec|FunctionalExtensionality\.functional_extensionality_dep'
test "$(head -n 1 Valid.out)" = "Axioms:" || { echo "no list of axioms" >&2; exit 1; }
if grep -v '^ ' Valid.out | tail -n +2 | grep -Ev "^($allowed)( |\$)" >&2; then
    echo "more is assumed than the axioms of the real numbers" >&2
    exit 1
fi
echo "$(cat ./*.v | grep -c '^Theorem') theorems are proved, from the axioms of Coq's real numbers alone"
