(** Spectral norms of matrices, from residuals of factorisations: what check.py's [bounded] and
    [positive] of kinds/multipliers.py rest on. A factor L is never trusted: whatever it is, the
    residual that belongs to it is counted. *)

From Coq Require Import Reals Lra Lia Psatz.
From Onelip Require Import Vectors.
Local Open Scope R_scope.

(** [bounded m n A c]: the spectral norm of A, of m rows and n columns, is at most c. *)
Definition bounded (m n : nat) (A : mat) (c : R) : Prop :=
  forall x, norm m (mul n A x) <= c * norm n x.

(** R = t I - A^T A - L L^T, for A of m rows and n columns and L of k columns. *)
Definition residual (m n k : nat) (A L : mat) (t : R) (R : mat) : Prop :=
  forall i j, (i < n)%nat -> (j < n)%nat ->
    R i j = t * ident i j - gram m A i j - gram k (trans L) i j.

Lemma residual_form m n k A L t R x : residual m n k A L t R ->
  form n R x = t * dot n x x - dot m (mul n A x) (mul n A x)
    - dot k (mul n (trans L) x) (mul n (trans L) x).
Proof.
  intros H. rewrite <- !form_gram. unfold form.
  rewrite <- dot_scale, <- !dot_sub. apply dot_ext; [reflexivity|]. intros i Hi.
  transitivity (mul n (fun i j => t * ident i j - gram m A i j - gram k (trans L) i j) x i).
  - apply dot_ext; auto.
  - unfold sub, scale, mul, dot.
    rewrite <- (sum_ident n i x Hi). rewrite <- sum_scale.
    assert (D : forall f g, sum n (fun j => f j - g j) = sum n f - sum n g).
    { intros f g. clear. induction n; simpl; lra. }
    rewrite <- !D. apply sum_ext. intros. lra.
Qed.

(** (1) Whatever L is, |A|^2 <= t + |R|_F. *)
Theorem residual_square m n k A L t R : residual m n k A L t R ->
  forall x, dot m (mul n A x) (mul n A x) <= (t + frobenius n n R) * dot n x x.
Proof.
  intros H x. pose proof (residual_form _ _ _ _ _ _ _ x H) as G.
  pose proof (dot_nonneg k (mul n (trans L) x)). pose proof (form_le n R x).
  pose proof (Rle_abs (- form n R x)) as N. rewrite Rabs_Ropp in N. lra.
Qed.

Theorem residual_norm m n k A L t R c : residual m n k A L t R ->
  0 <= c -> t + frobenius n n R <= c * c -> bounded m n A c.
Proof.
  intros H Hc Hle x. pose proof (norm_nonneg n x).
  apply norm_le; [nra|]. pose proof (residual_square _ _ _ _ _ _ _ H x).
  pose proof (norm_square n x). pose proof (dot_nonneg n x). nra.
Qed.

(** Without a factor: the spectral norm is at most the Frobenius norm. *)
Theorem frobenius_norm m n A c : frobenius m n A <= c -> bounded m n A c.
Proof.
  intros H x. pose proof (frobenius_bound m n A x). pose proof (norm_nonneg n x). nra.
Qed.

(** A matrix and its transpose have the same norm, so the smaller Gram matrix will do. *)
Theorem transposed_norm m n A c : 0 <= c -> bounded m n A c -> bounded n m (trans A) c.
Proof.
  intros Hc H y. set (z := mul m (trans A) y).
  assert (E : norm n z * norm n z <= c * norm m y * norm n z).
  { rewrite norm_square. unfold z at 2. rewrite <- mul_trans.
    pose proof (dot_le m (mul n A z) y). pose proof (H z). pose proof (norm_nonneg m y). nra. }
  pose proof (norm_nonneg n z). pose proof (norm_nonneg m y).
  destruct (Req_dec (norm n z) 0) as [->|]; [nra|].
  apply Rmult_le_reg_r with (norm n z); lra.
Qed.

(** (2) A matrix on a grid of unit u, and what the grid leaves out. *)
Theorem grid_norm m n (G E : mat) c : bounded m n G c ->
  bounded m n (madd G E) (c + frobenius m n E).
Proof.
  intros H x. pose proof (H x). pose proof (frobenius_bound m n E x).
  pose proof (triangle m (mul n G x) (mul n E x)).
  rewrite (norm_ext m _ (add (mul n G x) (mul n E x))); [lra|].
  intros i _. unfold mul, madd, add, dot. rewrite <- sum_add. apply sum_ext. intros. lra.
Qed.

Theorem scaled_norm m n (G : mat) u c : 0 <= u -> bounded m n G c ->
  bounded m n (fun i j => u * G i j) (u * c).
Proof.
  intros Hu H x. rewrite (norm_ext m _ (scale u (mul n G x))).
  - rewrite norm_scale, Rmult_assoc by lra. now apply Rmult_le_compat_l.
  - intros i _. unfold mul, scale, dot. rewrite <- sum_scale. apply sum_ext. intros. lra.
Qed.

(** The claim c of a weight u G + E, as it is checked. *)
Theorem claimed_norm m n k (G E L R : mat) t rho u c e :
  residual m n k G L t R -> frobenius n n R <= rho ->
  0 < u -> frobenius m n E <= e -> e <= c -> t + rho <= ((c - e) / u) * ((c - e) / u) ->
  bounded m n (madd (fun i j => u * G i j) E) c.
Proof.
  intros H Hrho Hu HE Hc Ht x.
  assert (Hq : 0 <= (c - e) / u) by (apply Rle_mult_inv_pos; lra).
  pose proof (residual_norm _ _ _ _ _ _ _ _ H Hq ltac:(lra)) as B.
  assert (S : bounded m n (fun i j => u * G i j) (c - e)).
  { replace (c - e) with (u * ((c - e) / u)) by (field; lra). apply scaled_norm; [lra|exact B]. }
  pose proof (grid_norm m n _ E _ S x). pose proof (norm_nonneg n x). nra.
Qed.

(** One factor for each entry. *)
Theorem diagonal_norm n (d : vec) c : 0 <= c -> (forall i, (i < n)%nat -> Rabs (d i) <= c) ->
  bounded n n (fun i j => ident i j * d j) c.
Proof.
  intros Hc H x. pose proof (norm_nonneg n x). apply norm_le; [nra|].
  replace (c * _ * _) with (c * c * (norm n x * norm n x)) by ring. rewrite norm_square.
  unfold dot at 2. rewrite <- sum_scale. apply sum_le. intros i Hi.
  replace (mul n _ x i) with (d i * x i).
  - pose proof (Rsqr_le_abs_1 (d i) c) as S. rewrite (Rabs_pos_eq c Hc) in S.
    specialize (S (H i Hi)). pose proof (Rle_0_sqr (x i)). unfold Rsqr in *. nra.
  - rewrite <- (sum_ident n i (fun j => d j * x j) Hi). apply sum_ext. intros. ring.
Qed.

(** Entry i of the result is entry k of the input where [index i] is [Some k], and 0 for a None;
    no entry is taken more than c^2 times. *)
Definition taken (index : nat -> option nat) : mat :=
  fun i j => match index i with Some k => ident k j | None => 0 end.

Theorem taken_norm m n index c : 0 <= c ->
  (forall i k, (i < m)%nat -> index i = Some k -> (k < n)%nat) ->
  (forall j, (j < n)%nat -> sum m (fun i => taken index i j) <= c * c) ->
  bounded m n (taken index) c.
Proof.
  intros Hc Hi Hs x. pose proof (norm_nonneg n x). apply norm_le; [nra|].
  replace (c * _ * _) with (c * c * (norm n x * norm n x)) by ring. rewrite norm_square.
  apply Rle_trans with (sum n (fun j => sum m (fun i => taken index i j) * (x j * x j))).
  - right. transitivity (sum m (fun i => sum n (fun j => taken index i j * (x j * x j)))).
    + apply sum_ext. intros i Him. unfold mul, dot, taken.
      destruct (index i) as [k|] eqn:E.
      * specialize (Hi i k Him E). rewrite (sum_ident n k x Hi).
        symmetry. apply (sum_ident n k (fun j => x j * x j) Hi).
      * rewrite (sum_scale n 0 x), (sum_scale n 0 (fun j => x j * x j)). ring.
    + rewrite sum_swap. apply sum_ext. intros j _.
      rewrite (Rmult_comm (sum m _)), <- sum_scale. apply sum_ext. intros. ring.
  - unfold dot. rewrite <- sum_scale. apply sum_le. intros j Hj.
    apply Rmult_le_compat_r; [apply Rle_0_sqr|auto].
Qed.

(** How check.py shows that a form has no negative values: S M S = mu I + L L^T + R with a
    diagonal S > 0 and |R|_F <= mu. *)
Theorem form_nonnegative n k (M L R : mat) (s : vec) mu :
  (forall i, (i < n)%nat -> 0 < s i) ->
  (forall i j, (i < n)%nat -> (j < n)%nat ->
    s i * M i j * s j = mu * ident i j + gram k (trans L) i j + R i j) ->
  frobenius n n R <= mu -> forall x, 0 <= form n M x.
Proof.
  intros Hs HR Hmu x. set (z := fun i => x i / s i).
  assert (E : form n M x = mu * dot n z z + form n (gram k (trans L)) z + form n R z).
  { unfold form. rewrite <- dot_scale, <- !dot_add. apply sum_ext. intros i Hi.
    replace (x i) with (z i * s i) by (unfold z; field; specialize (Hs i Hi); lra).
    rewrite Rmult_assoc. f_equal. unfold mul at 1, dot. rewrite <- sum_scale.
    unfold add, scale, mul, dot. rewrite <- (sum_ident n i z Hi).
    rewrite <- sum_scale, <- !sum_add. apply sum_ext. intros j Hj.
    replace (x j) with (s j * z j) by (unfold z; field; specialize (Hs j Hj); lra).
    rewrite <- !Rmult_assoc, HR by assumption. ring. }
  rewrite E, form_gram. pose proof (dot_nonneg k (mul n (trans L) z)).
  pose proof (form_le n R z). pose proof (Rle_abs (- form n R z)) as A. rewrite Rabs_Ropp in A.
  pose proof (dot_nonneg n z). nra.
Qed.
