(** Groups of entries: sorting one is a list of exchanges, so it has the constant 1; maxima of
    windows have the root of the number of windows that see one entry. *)

From Coq Require Import Reals Lra Lia List.
From Onelip Require Import Vectors Norms Maps.
Local Open Scope R_scope.

(** y has the entries of x, each once: those at the places, moved among them. *)
Definition permuted (inside : nat -> Prop) (x y : vec) : Prop :=
  exists p : nat -> nat, (forall i, y i = x (p i)) /\ (forall i j, p i = p j -> i = j) /\
    (forall i, ~ inside i -> p i = i).

Lemma exchange_permutes (inside : nat -> Prop) i j x : inside i -> inside j -> i <> j ->
  permuted inside x (exchange i j x).
Proof.
  intros Hi Hj N. destruct (Rle_dec (x i) (x j)) as [H|H].
  - exists (fun k => k). split; [|auto]. intros k. unfold exchange.
    destruct (Nat.eq_dec k i) as [->|]; [now apply Rmin_left|].
    destruct (Nat.eq_dec k j) as [->|]; [now apply Rmax_right|reflexivity].
  - exists (fun k => if Nat.eq_dec k i then j else if Nat.eq_dec k j then i else k).
    split; [|split].
    + intros k. unfold exchange.
      destruct (Nat.eq_dec k i) as [->|]; [apply Rmin_right; lra|].
      destruct (Nat.eq_dec k j) as [->|]; [apply Rmax_left; lra|reflexivity].
    + intros k l. destruct (Nat.eq_dec k i), (Nat.eq_dec k j), (Nat.eq_dec l i), (Nat.eq_dec l j);
        congruence.
    + intros k Hk. destruct (Nat.eq_dec k i), (Nat.eq_dec k j); congruence.
Qed.

Theorem exchanges_permute (inside : nat -> Prop) pairs :
  (forall i j, In (i, j) pairs -> inside i /\ inside j /\ i <> j) ->
  forall x, permuted inside x (exchanges pairs x).
Proof.
  induction pairs as [|[i j] rest IH]; simpl; intros H x; [now exists (fun k => k)|].
  destruct (H i j (or_introl eq_refl)) as [Hi [Hj N]].
  destruct (exchange_permutes inside i j x Hi Hj N) as [p [P [P1 P2]]].
  destruct (IH ltac:(auto) (exchange i j x)) as [q [Q [Q1 Q2]]].
  exists (fun k => p (q k)). split; [|split]; auto.
  - intros k. now rewrite Q, P.
  - intros k Hk. now rewrite (Q2 k Hk), P2.
Qed.

Lemma exchanges_app a b x : exchanges (a ++ b) x = exchanges b (exchanges a x).
Proof. revert x. induction a as [|[i j] a IH]; simpl; auto. Qed.

(** Bubble sort of the entries at places q 0, q 1, ... *)
Section Places.
Variable q : nat -> nat.
Hypothesis distinct : forall i j, q i = q j -> i = j.

Fixpoint pass (k : nat) : list (nat * nat) :=
  match k with
  | O => nil
  | S l => pass l ++ (q l, q (S l)) :: nil
  end.

Fixpoint bubble (k : nat) : list (nat * nat) :=
  match k with
  | O => nil
  | S l => pass l ++ bubble l
  end.

Lemma pass_places k a b : In (a, b) (pass k) ->
  exists i j, a = q i /\ b = q j /\ (i <= k)%nat /\ (j <= k)%nat /\ i <> j.
Proof.
  induction k as [|k IH]; simpl; [tauto|]. intros H. apply in_app_or in H. destruct H as [H|[H|[]]].
  - destruct (IH H) as [i [j ?]]. exists i, j. intuition lia.
  - injection H as <- <-. exists k, (S k). intuition lia.
Qed.

Theorem bubble_places k a b : In (a, b) (bubble k) ->
  exists i j, a = q i /\ b = q j /\ (i < k)%nat /\ (j < k)%nat /\ i <> j.
Proof.
  induction k as [|k IH]; simpl; [tauto|]. intros H. apply in_app_or in H. destruct H as [H|H].
  - destruct (pass_places k a b H) as [i [j ?]]. exists i, j. intuition lia.
  - destruct (IH H) as [i [j ?]]. exists i, j. intuition lia.
Qed.

(** The three entries of an exchange. *)
Lemma exchange_at i j x l : i <> j -> exchange (q i) (q j) x (q l) =
  if Nat.eq_dec l i then Rmin (x (q i)) (x (q j))
  else if Nat.eq_dec l j then Rmax (x (q i)) (x (q j)) else x (q l).
Proof.
  intros N. unfold exchange.
  destruct (Nat.eq_dec (q l) (q i)) as [E|], (Nat.eq_dec l i); try apply distinct in E;
    try congruence.
  destruct (Nat.eq_dec (q l) (q j)) as [E|], (Nat.eq_dec l j); try apply distinct in E; congruence.
Qed.

(** A pass takes the largest entry to the end. *)
Lemma pass_largest k x : forall i, (i <= k)%nat ->
  exchanges (pass k) x (q i) <= exchanges (pass k) x (q k).
Proof.
  induction k as [|k IH]; intros i Hi; simpl; [replace i with O by lia; lra|].
  rewrite exchanges_app. set (y := exchanges (pass k) x) in *. simpl. rewrite !exchange_at by lia.
  pose proof (Rmax_l (y (q k)) (y (q (S k)))). pose proof (Rmin_l (y (q k)) (y (q (S k)))).
  destruct (Nat.eq_dec (S k) k), (Nat.eq_dec (S k) (S k)); try lia.
  destruct (Nat.eq_dec i k), (Nat.eq_dec i (S k)); try lra.
  specialize (IH i ltac:(lia)). lra.
Qed.

(** What is at most M stays so, and an entry after those that move stays where it is. *)
Lemma exchanges_below pairs k M :
  (forall a b, In (a, b) pairs ->
    exists i j, a = q i /\ b = q j /\ (i < k)%nat /\ (j < k)%nat /\ i <> j) ->
  forall x, (forall i, (i < k)%nat -> x (q i) <= M) ->
  (forall i, (i < k)%nat -> exchanges pairs x (q i) <= M) /\
  (forall l, (k <= l)%nat -> exchanges pairs x (q l) = x (q l)).
Proof.
  induction pairs as [|[a b] rest IH]; simpl; intros H x Hx; [auto|].
  destruct (H a b (or_introl eq_refl)) as [i [j [-> [-> [Hi [Hj N]]]]]].
  destruct (IH ltac:(auto) (exchange (q i) (q j) x)) as [U V].
  - intros l Hl. rewrite exchange_at by auto.
    destruct (Nat.eq_dec l i), (Nat.eq_dec l j); auto;
      [pose proof (Rmin_l (x (q i)) (x (q j))); specialize (Hx i Hi); lra..|].
    apply Rmax_lub; auto.
  - split; [exact U|]. intros l Hl. rewrite V, exchange_at by auto.
    destruct (Nat.eq_dec l i), (Nat.eq_dec l j); try lia. reflexivity.
Qed.

Theorem bubble_sorts k : forall x i, (S i < k)%nat ->
  exchanges (bubble k) x (q i) <= exchanges (bubble k) x (q (S i)).
Proof.
  induction k as [|k IH]; intros x i Hi; [lia|]. simpl. rewrite exchanges_app.
  set (y := exchanges (pass k) x).
  destruct (exchanges_below (bubble k) k (y (q k)) (bubble_places k) y) as [U V].
  - intros l Hl. apply pass_largest. lia.
  - destruct (Nat.eq_dec (S i) k) as [<-|]; [|apply IH; lia].
    rewrite (V (S i)) by lia. apply U. lia.
Qed.
End Places.

(** * Maxima *)

(** The largest of f 0, ..., f p. *)
Fixpoint largest (p : nat) (f : vec) : R :=
  match p with
  | O => f O
  | S l => Rmax (largest l f) (f (S l))
  end.

Lemma largest_apart p f g :
  (largest p f - largest p g) * (largest p f - largest p g) <=
  sum (S p) (fun k => (f k - g k) * (f k - g k)).
Proof.
  induction p as [|p IH]; [simpl; lra|].
  change (sum (S (S p)) ?h) with (sum (S p) h + h (S p)). cbv beta. simpl largest.
  set (a := largest p f) in *. set (b := largest p g) in *.
  assert (0 <= sum (S p) (fun k => (f k - g k) * (f k - g k)))
    by (apply sum_nonneg; intros; apply Rle_0_sqr).
  pose proof (Rle_0_sqr (f (S p) - g (S p))) as P. unfold Rsqr in P.
  unfold Rmax. destruct (Rle_dec a (f (S p))), (Rle_dec b (g (S p))); try lra.
  - destruct (Rle_dec (f (S p)) b); nra.
  - destruct (Rle_dec a (g (S p))); nra.
Qed.

(** Entry i of the result is the largest of the p + 1 entries w i 0, ..., w i p. *)
Definition maxima (w : nat -> nat -> nat) (p : nat) (x : vec) : vec :=
  fun i => largest p (fun k => x (w i k)).

(** How many of the m windows see entry j. *)
Definition seen (m : nat) (w : nat -> nat -> nat) (p j : nat) : R :=
  sum m (fun i => sum (S p) (fun k => ident (w i k) j)).

Theorem maxima_lipschitz n m w p c : 0 <= c ->
  (forall i k, (i < m)%nat -> (k <= p)%nat -> (w i k < n)%nat) ->
  (forall j, (j < n)%nat -> seen m w p j <= c * c) -> lipschitz n m (maxima w p) c.
Proof.
  intros Hc Hw Hs x y. set (d := sub x y). pose proof (norm_nonneg n d).
  apply norm_le; [nra|]. replace (c * _ * _) with (c * c * (norm n d * norm n d)) by ring.
  rewrite norm_square.
  apply Rle_trans with (sum m (fun i => sum (S p) (fun k => d (w i k) * d (w i k)))).
  { apply sum_le. intros i _. apply largest_apart. }
  apply Rle_trans with (sum n (fun j => seen m w p j * (d j * d j))).
  - right. transitivity
      (sum m (fun i => sum (S p) (fun k => sum n (fun j => ident (w i k) j * (d j * d j))))).
    + apply sum_ext. intros i Hi. apply sum_ext. intros k Hk.
      symmetry. apply (sum_ident n (w i k) (fun j => d j * d j)). apply Hw; lia.
    + transitivity
        (sum m (fun i => sum n (fun j => sum (S p) (fun k => ident (w i k) j * (d j * d j))))).
      { apply sum_ext. intros. apply sum_swap. }
      rewrite sum_swap. apply sum_ext. intros j _. unfold seen.
      rewrite (Rmult_comm (sum m _)), <- sum_scale. apply sum_ext. intros i _.
      rewrite <- sum_scale. apply sum_ext. intros. ring.
  - unfold dot. rewrite <- sum_scale. apply sum_le. intros j Hj.
    apply Rmult_le_compat_r; [apply Rle_0_sqr|auto].
Qed.
