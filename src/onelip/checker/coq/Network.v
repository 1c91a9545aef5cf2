(** Networks, the functions that they are, and what check.py compares. [checked] and
    [checked_sample] are comparisons of numbers; Valid.v says what follows from them. That computed
    values are within e is taken as given here; [image_error] and [block_error] add it up. *)

From Coq Require Import Reals List.
From Onelip Require Import Vectors Norms Maps Groups.
Local Open Scope R_scope.

(** * Networks *)

(** x -> A x + b, and the claim of a norm. *)
Record linear := Linear { rows : nat; columns : nat; matrix : mat; shift : vec; claim : R }.

(** Slopes below 0, between two numbers; entries that are put in order, two by two, as for sorting
    groups ([bubble_sorts]); maxima of so many windows w of p + 1 entries, and their constant. *)
Inductive activation :=
| Leaky (below : vec) (low high : R)
| Exchanges (pairs : list (nat * nat))
| Maxima (windows : nat) (w : nat -> nat -> nat) (p : nat) (c : R).

(** outer (activation (inner x)) + skip x, without the sum for a None; and the step
    x - h A^T activation (A x + b). Each with a claim of its constant. *)
Inductive block :=
| Plain (inner : list linear) (act : activation) (outer : list linear)
    (skip : option (list linear)) (bound : R)
| Step (inner : linear) (act : activation) (h bound : R).

Record network := Network { blocks : list block; last : list linear }.

(** * The functions that they are *)

Definition image (f : linear) (x : vec) : vec := add (mul (columns f) (matrix f) x) (shift f).

Fixpoint images (fs : list linear) (x : vec) : vec :=
  match fs with
  | nil => x
  | f :: rest => images rest (image f x)
  end.

Definition activate (act : activation) : vec -> vec :=
  match act with
  | Leaky below _ _ => elementwise (fun i => leaky (below i))
  | Exchanges pairs => exchanges pairs
  | Maxima _ w p _ => maxima w p
  end.

Definition run_block (B : block) (x : vec) : vec :=
  match B with
  | Plain inner act outer None _ => images outer (activate act (images inner x))
  | Plain inner act outer (Some skip) _ =>
      add (images outer (activate act (images inner x))) (images skip x)
  | Step f act h _ =>
      gradient_step (columns f) (rows f) (matrix f) (shift f) (activate act) h x
  end.

Fixpoint run_blocks (Bs : list block) (x : vec) : vec :=
  match Bs with
  | nil => x
  | B :: rest => run_blocks rest (run_block B x)
  end.

Definition run (N : network) (x : vec) : vec := images (last N) (run_blocks (blocks N) x).

(** * What is checked *)

(** A norm: by the Frobenius norm or by a factor, of the matrix or of its transpose; by the largest
    of factors; or by how often an entry is taken. *)
Inductive shown : nat -> nat -> mat -> R -> Prop :=
| by_frobenius m n (G E : mat) u e c :
    0 < u -> frobenius m n E <= e -> e <= c ->
    frobenius m n G * frobenius m n G <= ((c - e) / u) * ((c - e) / u) ->
    shown m n (madd (fun i j => u * G i j) E) c
| by_factor m n k (G E L R : mat) t rho u e c :
    residual m n k G L t R -> frobenius n n R <= rho -> 0 < u -> frobenius m n E <= e ->
    e <= c -> t + rho <= ((c - e) / u) * ((c - e) / u) ->
    shown m n (madd (fun i j => u * G i j) E) c
| by_entries m n (A B : mat) c :
    (forall i j, (i < m)%nat -> (j < n)%nat -> A i j = B i j) -> shown m n A c -> shown m n B c
| by_transpose m n A c : 0 <= c -> shown n m (trans A) c -> shown m n A c
| by_largest n d c : 0 <= c -> (forall i, (i < n)%nat -> Rabs (d i) <= c) ->
    shown n n (fun i j => ident i j * d j) c
| by_repetitions m n index c : 0 <= c ->
    (forall i k, (i < m)%nat -> index i = Some k -> (k < n)%nat) ->
    (forall j, (j < n)%nat -> sum m (fun i => taken index i j) <= c * c) ->
    shown m n (taken index) c.

(** Linear maps one after the other, from n numbers to m. *)
Fixpoint checked_maps (n : nat) (fs : list linear) (m : nat) : Prop :=
  match fs with
  | nil => n = m
  | f :: rest => columns f = n /\ 0 <= claim f /\ shown (rows f) n (matrix f) (claim f)
      /\ checked_maps (rows f) rest m
  end.

Fixpoint norms (fs : list linear) : R :=
  match fs with
  | nil => 1
  | f :: rest => claim f * norms rest
  end.

(** From n numbers to m. *)
Definition checked_activation (n : nat) (act : activation) (m : nat) : Prop :=
  match act with
  | Leaky below low high =>
      n = m /\ low <= 1 <= high /\ forall i, (i < n)%nat -> low <= below i <= high
  | Exchanges pairs =>
      n = m /\ forall i j, In (i, j) pairs -> (i < n)%nat /\ (j < n)%nat /\ i <> j
  | Maxima windows w p c =>
      windows = m /\ 0 <= c /\
      (forall i k, (i < m)%nat -> (k <= p)%nat -> (w i k < n)%nat) /\
      (forall j, (j < n)%nat -> seen m w p j <= c * c)
  end.

(** Slopes, or a constant and its negative. *)
Definition highest (act : activation) : R :=
  match act with Leaky _ _ high => high | Exchanges _ => 1 | Maxima _ _ _ c => c end.
Definition lowest (act : activation) : R :=
  match act with Leaky _ low _ => low | _ => - highest act end.

Definition bound_of (B : block) : R := match B with Plain _ _ _ _ b => b | Step _ _ _ b => b end.

Definition checked_block (n : nat) (B : block) (m : nat) : Prop :=
  match B with
  | Plain inner act outer skip bound => exists k l,
      checked_maps n inner k /\ checked_activation k act l /\ checked_maps l outer m /\
      let least := norms inner * Rmax (highest act) (- lowest act) * norms outer in
      match skip with
      | None => least <= bound
      | Some maps => checked_maps n maps m /\ least + norms maps <= bound
      end
  | Step f act h bound =>
      n = m /\ checked_maps n (f :: nil) (rows f) /\
      checked_activation (rows f) act (rows f) /\ 0 <= h /\
      let reach := h * (claim f * claim f) in
      Rmax 1 (Rmax (reach * highest act - 1) (1 - reach * Rmin (lowest act) 0)) <= bound
  end.

Fixpoint checked_blocks (n : nat) (Bs : list block) (m : nat) : Prop :=
  match Bs with
  | nil => n = m
  | B :: rest => exists k, checked_block n B k /\ checked_blocks k rest m
  end.

Fixpoint bounds (Bs : list block) : R :=
  match Bs with
  | nil => 1
  | B :: rest => bound_of B * bounds rest
  end.

(** A network from n numbers to m, and the claim L of its constant. *)
Definition checked (n : nat) (N : network) (m : nat) (L : R) : Prop :=
  exists k, checked_blocks n (blocks N) k /\ checked_maps k (last N) m /\
    bounds (blocks N) * norms (last N) <= L.

(** A sample x with values v within e of the network's, a prediction y and a radius r. Head
    "network": K is the root of 2 times the constant for every pair. Head "pairs": the last map
    is W, and K is what lies before it times the distance of two rows. *)
Inductive checked_pair (N : network) (y j : nat) (K : R) : Prop :=
| by_network : sqrt 2 * (bounds (blocks N) * norms (last N)) <= K -> checked_pair N y j K
| by_rows before W (G E : mat) u e : last N = before ++ W :: nil ->
    (forall i l, (i < rows W)%nat -> (l < columns W)%nat -> matrix W i l = u * G i l + E i l) ->
    0 < u -> frobenius (rows W) (columns W) E <= e ->
    bounds (blocks N) * norms before * (u * norm (columns W) (sub (G y) (G j)) + 2 * e) <= K ->
    checked_pair N y j K.

Definition checked_sample (N : network) (m : nat) (x v : vec) (e : R) (y : nat) (r : R) : Prop :=
  (y < m)%nat /\ norm m (sub v (run N x)) <= e /\
  forall j, (j < m)%nat -> j <> y ->
    r = 0 \/ exists K, checked_pair N y j K /\ r * K < v y - v j - sqrt 2 * e.
