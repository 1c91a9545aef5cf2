(** Lipschitz constants of maps: how they combine, activations, gradient steps. *)

From Coq Require Import Reals Lra Lia Psatz.
From Onelip Require Import Vectors Norms.
Local Open Scope R_scope.

(** [lipschitz n m f c]: |f x - f y| <= c |x - y|, for f from n numbers to m. *)
Definition lipschitz (n m : nat) (f : vec -> vec) (c : R) : Prop :=
  forall x y, norm m (sub (f x) (f y)) <= c * norm n (sub x y).

Theorem identity_lipschitz n : lipschitz n n (fun x => x) 1.
Proof. intros x y. lra. Qed.

Theorem affine_lipschitz m n A b c : bounded m n A c ->
  lipschitz n m (fun x => add (mul n A x) b) c.
Proof.
  intros H x y. rewrite (norm_ext m _ (mul n A (sub x y))); [apply H|].
  intros i _. rewrite mul_sub. unfold sub, add. lra.
Qed.

(** (3) Constants of a composition multiply, those of a sum add. *)
Theorem composition_lipschitz n m p f g c d :
  lipschitz n m f c -> lipschitz m p g d -> 0 <= d -> lipschitz n p (fun x => g (f x)) (d * c).
Proof.
  intros F G Hd x y. pose proof (F x y). pose proof (G (f x) (f y)). nra.
Qed.

Theorem sum_lipschitz n m f g c d :
  lipschitz n m f c -> lipschitz n m g d -> lipschitz n m (fun x => add (f x) (g x)) (c + d).
Proof.
  intros F G x y. pose proof (F x y). pose proof (G x y).
  pose proof (triangle m (sub (f x) (f y)) (sub (g x) (g y))).
  rewrite (norm_ext m _ (add (sub (f x) (f y)) (sub (g x) (g y)))); [lra|].
  intros i _. unfold sub, add. lra.
Qed.

Theorem larger_lipschitz n m f c d : lipschitz n m f c -> c <= d -> lipschitz n m f d.
Proof. intros F H x y. pose proof (F x y). pose proof (norm_nonneg n (sub x y)). nra. Qed.

(** outer (activation (inner x)) + skip x *)
Theorem block_lipschitz n h k m inner act outer skip a b c d :
  lipschitz n h inner a -> lipschitz h k act b -> lipschitz k m outer c -> lipschitz n m skip d ->
  0 <= b -> 0 <= c -> lipschitz n m (fun x => add (outer (act (inner x))) (skip x)) (a * b * c + d).
Proof.
  intros I A O S Hb Hc. apply sum_lipschitz; [|exact S].
  replace (a * b * c) with (c * (b * a)) by ring.
  apply (composition_lipschitz n k m (fun x => act (inner x)) outer); auto.
  now apply (composition_lipschitz n h k).
Qed.

(** * Activations *)

(** Slopes of a function of one number lie between a and b. *)
Definition slopes (a b : R) (f : R -> R) : Prop :=
  forall u v, a * ((u - v) * (u - v)) <= (f u - f v) * (u - v) <= b * ((u - v) * (u - v)).

Definition elementwise (f : nat -> R -> R) (x : vec) : vec := fun i => f i (x i).

(** The slope between two points, so that f u - f v = secant * (u - v). *)
Definition secant (a : R) (f : R -> R) (u v : R) : R :=
  if Req_EM_T u v then a else (f u - f v) / (u - v).

Lemma slopes_order a b f : slopes a b f -> a <= b.
Proof. intros H. pose proof (H 1 0). lra. Qed.

Lemma secant_spec a b f u v : slopes a b f ->
  f u - f v = secant a f u v * (u - v) /\ a <= secant a f u v <= b.
Proof.
  intros H. unfold secant. destruct (Req_EM_T u v) as [->|N].
  - pose proof (slopes_order _ _ _ H). lra.
  - apply Rminus_eq_contra in N. set (s := (f u - f v) / (u - v)).
    assert (E : f u - f v = s * (u - v)) by (unfold s; now field).
    destruct (H u v) as [Ha Hb]. rewrite E in Ha, Hb.
    assert (P : 0 < (u - v) * (u - v)) by now apply Rsqr_pos_lt.
    split; [exact E|]. split; apply Rmult_le_reg_r with ((u - v) * (u - v)); lra.
Qed.

Theorem elementwise_lipschitz n f a b :
  (forall i, (i < n)%nat -> slopes a b (f i)) -> lipschitz n n (elementwise f) (Rmax b (- a)).
Proof.
  intros H x y. set (c := Rmax b (- a)).
  pose proof (Rmax_l b (- a)) as Hb. pose proof (Rmax_r b (- a)) as Ha. fold c in Ha, Hb.
  pose proof (norm_nonneg n (sub x y)) as N.
  destruct n as [|k]; [unfold norm, dot; simpl; rewrite sqrt_0; lra|].
  pose proof (slopes_order _ _ _ (H O (Nat.lt_0_succ k))).
  apply norm_le; [apply Rmult_le_pos; lra|].
  replace (c * _ * _) with (c * c * (norm (S k) (sub x y) * norm (S k) (sub x y))) by ring.
  rewrite norm_square. unfold dot. rewrite <- sum_scale. apply sum_le.
  intros i Hi. unfold sub, elementwise.
  destruct (secant_spec a b (f i) (x i) (y i) (H i Hi)) as [-> [? ?]].
  assert (secant a (f i) (x i) (y i) * secant a (f i) (x i) (y i) <= c * c) by nra.
  pose proof (Rle_0_sqr (x i - y i)) as Q. unfold Rsqr in Q. nra.
Qed.

(** As check.py has it: slopes s below 0 and 1 above; s = 0 is ReLU. *)
Definition leaky (s u : R) : R := Rmax u 0 + s * Rmin u 0.

Theorem leaky_slopes a b s : a <= s <= b -> a <= 1 <= b -> slopes a b (leaky s).
Proof.
  (* with p the slope at u and q at v: (p u - q v) (u - v) = p u u + q v v - (p + q) u v *)
  assert (P : forall p q u v, a <= p <= b -> a <= q <= b -> u * v <= 0 \/ p = q ->
    a * ((u - v) * (u - v)) <= (p * u - q * v) * (u - v) <= b * ((u - v) * (u - v))).
  { intros p q u v [? ?] [? ?] [U| ->].
    - assert (N : forall s t, 0 <= s -> 0 <= t ->
        0 <= s * (u * u) + t * (v * v) - (s + t) * (u * v))
        by (intros; pose proof (Rle_0_sqr u); pose proof (Rle_0_sqr v); unfold Rsqr in *; nra).
      specialize (N (p - a) (q - a) ltac:(lra) ltac:(lra)) as A.
      specialize (N (b - p) (b - q) ltac:(lra) ltac:(lra)) as B. split; lra.
    - replace ((q * u - q * v) * (u - v)) with (q * ((u - v) * (u - v))) by ring.
      split; apply Rmult_le_compat_r; auto; apply Rle_0_sqr. }
  intros Hs H1 u v. unfold leaky, Rmax, Rmin.
  destruct (Rle_dec u 0), (Rle_dec v 0).
  - replace (0 + s * u - (0 + s * v)) with (s * u - s * v) by ring. apply P; auto.
  - replace (0 + s * u - (v + s * 0)) with (s * u - 1 * v) by ring. apply P; auto. left. nra.
  - replace (u + s * 0 - (0 + s * v)) with (1 * u - s * v) by ring. apply P; auto. left. nra.
  - replace (u + s * 0 - (v + s * 0)) with (1 * u - 1 * v) by ring. apply P; auto.
Qed.

Theorem relu_lipschitz n : lipschitz n n (elementwise (fun _ u => Rmax u 0)) 1.
Proof.
  replace 1 with (Rmax 1 (- 0)) by (rewrite Rmax_left; lra).
  apply elementwise_lipschitz. intros _ _ u v.
  destruct (leaky_slopes 0 1 0 ltac:(lra) ltac:(lra) u v). unfold leaky in *. split; lra.
Qed.

(** Entries i and j in order, the smaller one at i. *)
Definition exchange (i j : nat) (x : vec) : vec := fun k =>
  if Nat.eq_dec k i then Rmin (x i) (x j) else if Nat.eq_dec k j then Rmax (x i) (x j) else x k.

Theorem exchange_lipschitz n i j : (i < n)%nat -> (j < n)%nat -> i <> j ->
  lipschitz n n (exchange i j) 1.
Proof.
  intros Hi Hj Hij x y. rewrite Rmult_1_l. apply sqrt_le_1_alt, Rge_le, Rminus_ge, Rle_ge.
  set (gain := fun k => sub x y k * sub x y k
    - sub (exchange i j x) (exchange i j y) k * sub (exchange i j x) (exchange i j y) k).
  replace (_ - _) with (sum n gain).
  2: { unfold gain, dot. generalize (exchange i j x), (exchange i j y). intros. clear.
       induction n; simpl; lra. }
  apply Rle_trans with (gain i + gain j).
  - unfold gain, sub, exchange.
    destruct (Nat.eq_dec i i), (Nat.eq_dec j i), (Nat.eq_dec j j); try congruence.
    unfold Rmin, Rmax.
    destruct (Rle_dec (x i) (x j)), (Rle_dec (y i) (y j)); nra.
  - apply sum_two; auto. intros k Hk Hki Hkj. unfold gain, sub, exchange.
    destruct (Nat.eq_dec k i), (Nat.eq_dec k j); try congruence. lra.
Qed.

(** * Gradient steps *)

Definition gradient_step (n m : nat) (W : mat) (b : vec) (act : vec -> vec) (h : R) (x : vec) :=
  sub x (scale h (mul m (trans W) (act (add (mul n W x) b)))).

(** A symmetric form B with |B z z| <= mu |z|^2 has B z w <= mu (|z|^2 + |w|^2) / 2; where
    M is its map, |M z| <= mu |z|. No eigenvalues are needed. *)
Lemma symmetric_norm n (B : vec -> vec -> R) (M : vec -> vec) mu z :
  0 < mu ->
  (forall w, dot n (M z) w = B z w) ->
  (forall w, 4 * B z w = B (add z w) (add z w) - B (sub z w) (sub z w)) ->
  (forall w, - mu * dot n w w <= B w w <= mu * dot n w w) ->
  norm n (M z) <= mu * norm n z.
Proof.
  intros Hmu HM HB H. set (w := scale (/ mu) (M z)).
  assert (I : 2 * dot n (M z) w <= mu * dot n z z + mu * dot n w w).
  { rewrite HM. pose proof (HB w). pose proof (H (add z w)) as P. pose proof (H (sub z w)) as Q.
    rewrite dot_add_add in P. rewrite dot_sub_sub in Q. lra. }
  unfold w in I. rewrite dot_scale_scale, dot_scale in I.
  apply norm_le; [apply Rmult_le_pos; [lra|apply norm_nonneg]|].
  replace (mu * _ * _) with (mu * (mu * (norm n z * norm n z))) by ring. rewrite norm_square.
  apply Rmult_le_reg_l with (/ mu); [now apply Rinv_0_lt_compat|].
  replace (/ mu * (mu * _)) with (mu * dot n z z) by (field; lra).
  replace (mu * (/ mu * _ * _)) with (/ mu * dot n (M z) (M z)) in I by (field; lra). lra.
Qed.

(** The derivative I - h W^T D W, D diagonal with entries between low and high. *)
Lemma derivative_norm n m W (D : vec) h low high c z :
  0 <= h -> 0 <= c -> bounded m n W c -> (forall i, (i < m)%nat -> low <= D i <= high) ->
  norm n (sub z (scale h (mul m (trans W) (fun i => D i * mul n W z i)))) <=
  Rmax 1 (Rmax (h * (c * c) * high - 1) (1 - h * (c * c) * Rmin low 0)) * norm n z.
Proof.
  intros Hh Hc HW HD. set (mu := Rmax 1 _).
  pose (S := fun w v => sum m (fun i => D i * (mul n W w i * mul n W v i))).
  pose proof (Rmax_l 1 (Rmax (h * (c * c) * high - 1) (1 - h * (c * c) * Rmin low 0))) as H1.
  pose proof (Rmax_r 1 (Rmax (h * (c * c) * high - 1) (1 - h * (c * c) * Rmin low 0))) as H2.
  pose proof (Rmax_l (h * (c * c) * high - 1) (1 - h * (c * c) * Rmin low 0)).
  pose proof (Rmax_r (h * (c * c) * high - 1) (1 - h * (c * c) * Rmin low 0)).
  fold mu in H1, H2.
  apply (symmetric_norm n (fun w v => dot n w v - h * S w v)
    (fun w => sub w (scale h (mul m (trans W) (fun i => D i * mul n W w i))))); [lra| | |].
  - intros w. rewrite dot_sym, dot_sub, dot_scale, <- mul_trans, dot_sym.
    do 2 f_equal. apply sum_ext. intros. lra.
  - intros w.
    assert (E : 4 * S z w = S (add z w) (add z w) - S (sub z w) (sub z w)).
    { unfold S. rewrite <- sum_scale.
      apply Rplus_eq_reg_r with
        (sum m (fun i => D i * (mul n W (sub z w) i * mul n W (sub z w) i))).
      rewrite <- sum_add. ring_simplify. apply sum_ext. intros. rewrite mul_add, mul_sub. ring. }
    apply (f_equal (Rmult h)) in E. rewrite dot_add_add, dot_sub_sub. lra.
  - intros w.
    set (q := dot m (mul n W w) (mul n W w)).
    assert (Q : q <= c * c * dot n w w).
    { unfold q. rewrite <- !norm_square. pose proof (HW w). pose proof (norm_nonneg m (mul n W w)).
      pose proof (norm_nonneg n w). nra. }
    assert (Q0 : 0 <= q) by apply dot_nonneg. pose proof (dot_nonneg n w).
    assert (L : Rmin low 0 * q <= S w w).
    { unfold q, dot. rewrite <- sum_scale. apply sum_le. intros i Hi. destruct (HD i Hi).
      pose proof (Rmin_l low 0). apply Rmult_le_compat_r; [apply Rle_0_sqr|lra]. }
    assert (U : S w w <= high * q).
    { unfold q, dot. rewrite <- sum_scale. apply sum_le. intros i Hi. destruct (HD i Hi).
      apply Rmult_le_compat_r; [apply Rle_0_sqr|lra]. }
    pose proof (Rmin_r low 0).
    assert (L' : h * (c * c) * Rmin low 0 * dot n w w <= h * S w w).
    { replace (h * (c * c) * _ * _) with (h * (Rmin low 0 * (c * c * dot n w w))) by ring.
      apply Rmult_le_compat_l; [lra|]. nra. }
    assert (U' : h * S w w <= Rmax 0 (h * (c * c) * high) * dot n w w).
    { destruct (Rle_dec 0 high).
      - apply Rle_trans with (h * (c * c) * high * dot n w w).
        + replace (h * (c * c) * _ * _) with (h * (high * (c * c * dot n w w))) by ring.
          apply Rmult_le_compat_l; [lra|]. nra.
        + apply Rmult_le_compat_r; [lra|apply Rmax_r].
      - apply Rle_trans with (0 * dot n w w); [assert (high * q <= 0) by nra; nra|].
        apply Rmult_le_compat_r; [lra|apply Rmax_l]. }
    assert (Rmax 0 (h * (c * c) * high) <= 1 + mu) by (apply Rmax_lub; lra).
    split; nra.
Qed.

(** x - h W^T phi(W x + b): the constant that check.py asks for, phi elementwise. *)
Theorem step_lipschitz n m W b phi h low high c :
  0 <= h -> 0 <= c -> bounded m n W c -> (forall i, (i < m)%nat -> slopes low high (phi i)) ->
  lipschitz n n (gradient_step n m W b (elementwise phi) h)
    (Rmax 1 (Rmax (h * (c * c) * high - 1) (1 - h * (c * c) * Rmin low 0))).
Proof.
  intros Hh Hc HW Hphi x y.
  pose (at_ := fun z => add (mul n W z) b).
  pose (D := fun i => secant low (phi i) (at_ x i) (at_ y i)).
  rewrite (norm_ext n _ (sub (sub x y)
    (scale h (mul m (trans W) (fun i => D i * mul n W (sub x y) i))))).
  - apply derivative_norm; auto. intros i Hi. unfold D.
    now destruct (secant_spec low high (phi i) (at_ x i) (at_ y i) (Hphi i Hi)).
  - intros i _.
    assert (E : mul m (trans W) (fun k => D k * mul n W (sub x y) k) i =
      mul m (trans W) (elementwise phi (at_ x)) i - mul m (trans W) (elementwise phi (at_ y)) i).
    { rewrite <- mul_sub. apply dot_ext; [reflexivity|]. intros k Hk. rewrite mul_sub.
      destruct (secant_spec low high (phi k) (at_ x k) (at_ y k) (Hphi k Hk)) as [S _].
      fold (D k) in S. unfold sub, elementwise. rewrite S. unfold at_, add. ring. }
    unfold gradient_step, sub at 1 2 3 4, scale. rewrite E. unfold at_, sub. ring.
Qed.

Theorem step_one n m W b phi h s c :
  0 <= h -> 0 <= c -> bounded m n W c -> (forall i, (i < m)%nat -> slopes 0 s (phi i)) ->
  h * s * (c * c) <= 2 -> lipschitz n n (gradient_step n m W b (elementwise phi) h) 1.
Proof.
  intros Hh Hc HW Hphi H2.
  apply larger_lipschitz with (1 := step_lipschitz n m W b phi h 0 s c Hh Hc HW Hphi).
  apply Rmax_lub; [lra|]. apply Rmax_lub; [lra|]. rewrite Rmin_left; lra.
Qed.

(** With an activation of which a constant is all that is known, as sorting: check.py takes its
    slopes to lie between - a and a. *)
Theorem step_any n m W b act h a c :
  0 <= h -> 0 <= c -> 0 <= a -> bounded m n W c -> lipschitz m m act a ->
  lipschitz n n (gradient_step n m W b act h)
    (Rmax 1 (Rmax (h * (c * c) * a - 1) (1 - h * (c * c) * Rmin (- a) 0))).
Proof.
  intros Hh Hc Ha HW Hact.
  apply larger_lipschitz with (1 + h * (c * a * c)).
  - pose (g := fun x => mul m (trans W) (act (add (mul n W x) b))).
    assert (G : lipschitz n n g (c * a * c)).
    { apply (composition_lipschitz n m n (fun x => act (add (mul n W x) b))
        (mul m (trans W)) (a * c) c) in Hc as Q.
      - now replace (c * a * c) with (c * (a * c)) by ring.
      - now apply (composition_lipschitz n m m); [apply affine_lipschitz|..].
      - intros x y. rewrite (norm_ext n _ (mul m (trans W) (sub x y))).
        + now apply transposed_norm.
        + intros i _. now rewrite mul_sub. }
    intros x y. pose proof (G x y).
    pose proof (triangle_sub n (sub x y) (scale h (sub (g x) (g y)))) as T.
    rewrite norm_scale in T by lra.
    rewrite (norm_ext n _ (sub (sub x y) (scale h (sub (g x) (g y))))); [nra|].
    intros i _. unfold gradient_step, sub, scale. fold (g x) (g y). ring.
  - rewrite (Rmin_left (- a) 0) by lra.
    apply Rle_trans with (2 := Rmax_r _ _). apply Rle_trans with (2 := Rmax_r _ _). nra.
Qed.
