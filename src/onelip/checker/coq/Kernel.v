(** What the checker's VALID rests on, last part: from constants to radii, and from quadratic forms
    to constants. Vectors.v, Norms.v and Maps.v come before it.

    Hypotheses are what check.py has computed, in exact integers; README.md says on which line.
    A Lemma is a step on the way; the Theorems are listed at the end, with what they assume. *)

From Coq Require Import Reals Lra Lia Psatz.
From Onelip Require Import Vectors Norms Maps.
Local Open Scope R_scope.

(** * Computed values *)

(** The image under u G + E of a batch that is within e of x: the grid's part is computed. *)
Theorem image_error m n (G E : mat) x v c e :
  bounded m n (madd G E) c -> 0 <= c -> norm n (sub v x) <= e ->
  norm m (sub (mul n G v) (mul n (madd G E) x)) <= c * e + frobenius m n E * norm n v.
Proof.
  intros H Hc He. pose proof (H (sub v x)). pose proof (frobenius_bound m n E v).
  pose proof (triangle_sub m (mul n (madd G E) (sub v x)) (mul n E v)).
  rewrite (norm_ext m _ (sub (mul n (madd G E) (sub v x)) (mul n E v))); [nra|].
  intros i _. unfold sub at 1 2. rewrite mul_sub.
  assert (S : mul n (madd G E) v i = mul n G v i + mul n E v i); [|lra].
  unfold mul, madd, dot. rewrite <- sum_add. apply sum_ext. intros. ring.
Qed.

(** A block that was run on computed values, w within d of f v, v within e of x. *)
Theorem block_error n m f c v w x d e :
  lipschitz n m f c -> 0 <= c -> norm m (sub w (f v)) <= d -> norm n (sub v x) <= e ->
  norm m (sub w (f x)) <= d + c * e.
Proof.
  intros F Hc Hd He. pose proof (F v x).
  pose proof (triangle m (sub w (f v)) (sub (f v) (f x))).
  rewrite (norm_ext m _ (add (sub w (f v)) (sub (f v) (f x)))); [nra|].
  intros i _. unfold add, sub. ring.
Qed.

(** * Radii *)

(** [pair n f y j K]: f_y - f_j has the Lipschitz constant K. *)
Definition pair (n : nat) (f : vec -> vec) (y j : nat) (K : R) : Prop :=
  forall x x', Rabs ((f x y - f x j) - (f x' y - f x' j)) <= K * norm n (sub x x').

Lemma two_entries m (u : vec) y j : (y < m)%nat -> (j < m)%nat -> j <> y ->
  Rabs (u y - u j) <= sqrt 2 * norm m u.
Proof.
  intros Hy Hj N. unfold norm. rewrite <- sqrt_mult_alt by lra.
  rewrite <- sqrt_Rsqr_abs. apply sqrt_le_1_alt. unfold Rsqr.
  assert (u y * u y + u j * u j <= dot m u u).
  { apply (sum_two m y j (fun i => u i * u i)); auto. intros. apply Rle_0_sqr. }
  pose proof (Rle_0_sqr (u y + u j)) as P. unfold Rsqr in P. lra.
Qed.

(** Head "network". *)
Theorem network_pair n m f L y j :
  (y < m)%nat -> (j < m)%nat -> j <> y -> lipschitz n m f L -> pair n f y j (sqrt 2 * L).
Proof.
  intros Hy Hj N F x x'. pose proof (F x x').
  pose proof (two_entries m (sub (f x) (f x')) y j Hy Hj N) as T.
  pose proof (sqrt_pos 2). unfold sub at 1 2 in T.
  replace (f x y - f x j - (f x' y - f x' j)) with (f x y - f x' y - (f x j - f x' j)) by ring. nra.
Qed.

(** Head "pairs": a matrix of k columns after a map of constant L. *)
Theorem matrix_pair n k g W b L y j : lipschitz n k g L ->
  pair n (fun x => add (mul k W (g x)) b) y j (L * norm k (sub (W y) (W j))).
Proof.
  intros G x x'. pose proof (G x x').
  pose proof (cauchy_schwarz k (sub (W y) (W j)) (sub (g x) (g x'))).
  pose proof (norm_nonneg k (sub (W y) (W j))). unfold add.
  replace (_ - _) with (dot k (sub (W y) (W j)) (sub (g x) (g x'))); [nra|].
  unfold mul. rewrite dot_sub, !(dot_sym k (sub (W y) (W j))), !dot_sub, !(dot_sym k (g _)). ring.
Qed.

(** The distance of two rows of G + E is that of the rows of G, and twice |E|_F at most. *)
Theorem rows_apart m n (G E : mat) y j : (y < m)%nat -> (j < m)%nat ->
  norm n (sub (madd G E y) (madd G E j)) <= norm n (sub (G y) (G j)) + 2 * frobenius m n E.
Proof.
  intros Hy Hj. pose proof (row_le m n E y Hy). pose proof (row_le m n E j Hj).
  pose proof (triangle n (sub (G y) (G j)) (sub (E y) (E j))).
  pose proof (triangle_sub n (E y) (E j)).
  rewrite (norm_ext n _ (add (sub (G y) (G j)) (sub (E y) (E j)))); [lra|].
  intros i _. unfold sub, madd, add. ring.
Qed.

(** (4) Values v within e of f x, constants K of differences: no rival overtakes within r. *)
Theorem radius n m f (K : nat -> R) x v e r y : (y < m)%nat ->
  norm m (sub v (f x)) <= e ->
  (forall j, (j < m)%nat -> j <> y ->
    0 <= K j /\ pair n f y j (K j) /\ r * K j < v y - v j - sqrt 2 * e) ->
  forall x', norm n (sub x' x) <= r -> forall j, (j < m)%nat -> j <> y -> f x' j < f x' y.
Proof.
  intros Hy He H x' Hx j Hj N. destruct (H j Hj N) as [HK [P M]].
  pose proof (two_entries m (sub v (f x)) y j Hy Hj N) as D. unfold sub at 1 2 in D.
  pose proof (P x' x) as Q. pose proof (sqrt_pos 2).
  assert (K j * norm n (sub x' x) <= r * K j) by nra.
  assert (sqrt 2 * norm m (sub v (f x)) <= sqrt 2 * e) by nra.
  pose proof (Rle_abs (v y - f x y - (v j - f x j))).
  pose proof (Rle_abs (- (f x' y - f x' j - (f x y - f x j)))) as A. rewrite Rabs_Ropp in A. lra.
Qed.

(** A sample with head "network", from a constant of the network and a computed vector. *)
Theorem sample n m f L x v e r y : (y < m)%nat -> 0 <= L -> lipschitz n m f L ->
  norm m (sub v (f x)) <= e ->
  (forall j, (j < m)%nat -> j <> y -> r * (sqrt 2 * L) < v y - v j - sqrt 2 * e) ->
  forall x', norm n (sub x' x) <= r -> forall j, (j < m)%nat -> j <> y -> f x' j < f x' y.
Proof.
  intros Hy HL F He H. apply (radius n m f (fun _ => sqrt 2 * L) x v e r y Hy He).
  intros j Hj N. split; [apply Rmult_le_pos; [apply sqrt_pos|exact HL]|].
  split; [now apply (network_pair n m)|auto].
Qed.

(** * Multipliers *)

(** A network of plain layers: x_0 = x, x_(k+1) = phi_k (W_k x_k + b_k); sizes n_0, n_1, ... *)
Section Multipliers.
Variables (depth : nat) (n : nat -> nat) (W : nat -> mat) (b : nat -> vec).
Variables (phi : nat -> nat -> R -> R) (low high t : nat -> vec).

Fixpoint layer (k : nat) (x : vec) : vec :=
  match k with
  | O => x
  | S l => elementwise (phi l) (add (mul (n l) (W l) (layer l x)) (b l))
  end.

(** (d_(k+1) - a W_k d_k)^T T_k (b W_k d_k - d_(k+1)) *)
Definition multiplied (k : nat) (d : nat -> vec) : R :=
  sum (n (S k)) (fun i => t k i *
    ((d (S k) i - low k i * mul (n k) (W k) (d k) i) *
     (high k i * mul (n k) (W k) (d k) i - d (S k) i))).

Definition network (x : vec) : vec :=
  add (mul (n depth) (W depth) (layer depth x)) (b depth).

Theorem multipliers_lipschitz m c : 0 <= c ->
  (forall k i, (k < depth)%nat -> (i < n (S k))%nat ->
    0 <= t k i /\ slopes (low k i) (high k i) (phi k i)) ->
  (forall d : nat -> vec, 0 <= c * c * dot (n O) (d O) (d O)
    - dot m (mul (n depth) (W depth) (d depth)) (mul (n depth) (W depth) (d depth))
    - 2 * sum depth (fun k => multiplied k d)) ->
  lipschitz (n O) m network c.
Proof.
  intros Hc Hs H x y.
  set (d := fun k => sub (layer k x) (layer k y)).
  assert (P : 0 <= sum depth (fun k => multiplied k d)).
  { apply sum_nonneg. intros k Hk. apply sum_nonneg. intros i Hi. destruct (Hs k i Hk Hi) as [Ht S].
    apply Rmult_le_pos; [exact Ht|].
    set (u := add (mul (n k) (W k) (layer k x)) (b k) i).
    set (v := add (mul (n k) (W k) (layer k y)) (b k) i).
    assert (U : mul (n k) (W k) (d k) i = u - v)
      by (unfold d, u, v, add; rewrite mul_sub; ring).
    change (d (Datatypes.S k) i) with (phi k i u - phi k i v). rewrite U.
    destruct (secant_spec _ _ _ u v S) as [-> [? ?]]. set (s := secant _ _ u v) in *.
    replace (_ * _) with ((s - low k i) * (high k i - s) * ((u - v) * (u - v))) by ring.
    apply Rmult_le_pos; [apply Rmult_le_pos; lra|apply Rle_0_sqr]. }
  rewrite (norm_ext m _ (mul (n depth) (W depth) (d depth))).
  - pose proof (norm_nonneg (n O) (sub x y)). apply norm_le; [nra|].
    replace (c * _ * _) with (c * c * (norm (n O) (sub x y) * norm (n O) (sub x y))) by ring.
    rewrite norm_square. specialize (H d). change (d O) with (sub x y) in H. lra.
  - intros i _. unfold d. rewrite mul_sub. unfold sub, network, add. ring.
Qed.
End Multipliers.

(** * What all of it assumes: the axioms of the real numbers in Coq *)

Definition theorems :=
  (cauchy_schwarz, frobenius_bound, residual_square, residual_norm, frobenius_norm,
   transposed_norm, grid_norm, claimed_norm, form_nonnegative, identity_lipschitz,
   affine_lipschitz, composition_lipschitz, sum_lipschitz, larger_lipschitz, block_lipschitz,
   elementwise_lipschitz, leaky_slopes, relu_lipschitz, exchange_lipschitz, step_lipschitz,
   step_one, step_any, image_error, block_error, network_pair, matrix_pair, rows_apart, radius,
   sample, multipliers_lipschitz).

Print Assumptions theorems.
