(** Vectors, matrices and Euclidean norms over the real numbers.

    A vector is a function from nat, a matrix one of two such arguments, and lengths are arguments
    of whatever sums: no types depend on numbers, proofs about sums are inductions on a length, and
    entries past the length are never looked at. *)

From Coq Require Import Reals Lra Lia Psatz.
Local Open Scope R_scope.

Definition vec := nat -> R.
Definition mat := nat -> nat -> R.

(** * Sums *)

Fixpoint sum (n : nat) (f : vec) : R :=
  match n with
  | O => 0
  | S k => sum k f + f k
  end.

Lemma sum_ext n f g : (forall i, (i < n)%nat -> f i = g i) -> sum n f = sum n g.
Proof. induction n; simpl; intros H; [|rewrite IHn, (H n)]; auto with arith. Qed.

Lemma sum_le n f g : (forall i, (i < n)%nat -> f i <= g i) -> sum n f <= sum n g.
Proof. induction n; simpl; intros H; [|apply Rplus_le_compat]; auto with arith; lra. Qed.

Lemma sum_zero n : sum n (fun _ => 0) = 0.
Proof. induction n; simpl; lra. Qed.

Lemma sum_nonneg n f : (forall i, (i < n)%nat -> 0 <= f i) -> 0 <= sum n f.
Proof. intros H. rewrite <- (sum_zero n). now apply sum_le. Qed.

Lemma sum_add n f g : sum n (fun i => f i + g i) = sum n f + sum n g.
Proof. induction n; simpl; lra. Qed.

Lemma sum_scale n c f : sum n (fun i => c * f i) = c * sum n f.
Proof. induction n; simpl; [|rewrite IHn]; lra. Qed.

Lemma sum_swap m n (a : mat) :
  sum m (fun i => sum n (fun j => a i j)) = sum n (fun j => sum m (fun i => a i j)).
Proof.
  induction m; simpl; [now rewrite sum_zero|]. now rewrite IHm, <- sum_add.
Qed.

Definition ident : mat := fun i j => if Nat.eq_dec i j then 1 else 0.

Lemma sum_ident n i f : (i < n)%nat -> sum n (fun j => ident i j * f j) = f i.
Proof.
  unfold ident. induction n; intros H; [lia|]. simpl.
  destruct (Nat.eq_dec i n) as [->|].
  - rewrite (sum_ext _ _ (fun _ => 0)), sum_zero; [lra|].
    intros j ?. destruct (Nat.eq_dec n j); [lia|lra].
  - rewrite IHn by lia. lra.
Qed.

(** Two terms are at most the sum if no other term is negative. *)
Lemma sum_two n i j f :
  (i < n)%nat -> (j < n)%nat -> i <> j ->
  (forall k, (k < n)%nat -> k <> i -> k <> j -> 0 <= f k) -> f i + f j <= sum n f.
Proof.
  intros Hi Hj Hij H. rewrite <- (sum_ident n i f Hi), <- (sum_ident n j f Hj), <- sum_add.
  apply sum_le. intros k Hk. unfold ident.
  destruct (Nat.eq_dec i k), (Nat.eq_dec j k); subst; try congruence; try lra.
  assert (0 <= f k) by auto. lra.
Qed.

Lemma sum_one n i f : (i < n)%nat -> (forall k, (k < n)%nat -> 0 <= f k) -> f i <= sum n f.
Proof.
  intros Hi H. rewrite <- (sum_ident n i f Hi). apply sum_le. intros k Hk. unfold ident.
  specialize (H k Hk). destruct (Nat.eq_dec i k); lra.
Qed.

(** * Vectors *)

Definition add (x y : vec) : vec := fun i => x i + y i.
Definition sub (x y : vec) : vec := fun i => x i - y i.
Definition scale (c : R) (x : vec) : vec := fun i => c * x i.
Definition dot (n : nat) (x y : vec) : R := sum n (fun i => x i * y i).
Definition norm (n : nat) (x : vec) : R := sqrt (dot n x x).

Lemma dot_ext n x x' y y' :
  (forall i, (i < n)%nat -> x i = x' i) -> (forall i, (i < n)%nat -> y i = y' i) ->
  dot n x y = dot n x' y'.
Proof. intros H G. apply sum_ext. intros. now rewrite H, G. Qed.

Lemma dot_sym n x y : dot n x y = dot n y x.
Proof. apply sum_ext. intros. lra. Qed.

Lemma dot_add n x y z : dot n x (add y z) = dot n x y + dot n x z.
Proof. unfold dot. rewrite <- sum_add. apply sum_ext. unfold add. intros. lra. Qed.

Lemma dot_scale n c x y : dot n x (scale c y) = c * dot n x y.
Proof. unfold dot. rewrite <- sum_scale. apply sum_ext. unfold scale. intros. lra. Qed.

Lemma dot_sub n x y z : dot n x (sub y z) = dot n x y - dot n x z.
Proof.
  transitivity (dot n x (add y (scale (-1) z))).
  - apply dot_ext; unfold sub, add, scale; intros; lra.
  - rewrite dot_add, dot_scale. lra.
Qed.

(** The square of a sum and of a difference. *)
Lemma dot_add_add n x y : dot n (add x y) (add x y) = dot n x x + 2 * dot n x y + dot n y y.
Proof.
  rewrite dot_add, 2!(dot_sym n (add x y)), 2!dot_add, (dot_sym n y x). lra.
Qed.

Lemma dot_sub_sub n x y : dot n (sub x y) (sub x y) = dot n x x - 2 * dot n x y + dot n y y.
Proof.
  rewrite dot_sub, 2!(dot_sym n (sub x y)), 2!dot_sub, (dot_sym n y x). lra.
Qed.

Lemma dot_scale_scale n c x : dot n (scale c x) (scale c x) = c * c * dot n x x.
Proof. rewrite dot_scale, dot_sym, dot_scale. lra. Qed.

Lemma dot_nonneg n x : 0 <= dot n x x.
Proof. apply sum_nonneg. intros. nra. Qed.

Lemma norm_nonneg n x : 0 <= norm n x.
Proof. apply sqrt_pos. Qed.

Lemma norm_square n x : norm n x * norm n x = dot n x x.
Proof. apply sqrt_sqrt, dot_nonneg. Qed.

Lemma norm_ext n x y : (forall i, (i < n)%nat -> x i = y i) -> norm n x = norm n y.
Proof. intros. unfold norm. f_equal. now apply dot_ext. Qed.

(** What has a square of at most c^2 is at most c. *)
Lemma root_le a c : 0 <= c -> a <= c * c -> sqrt a <= c.
Proof. intros Hc H. rewrite <- (sqrt_square c Hc). now apply sqrt_le_1_alt. Qed.

Lemma norm_le n x c : 0 <= c -> dot n x x <= c * c -> norm n x <= c.
Proof. apply root_le. Qed.

Lemma norm_scale n c x : 0 <= c -> norm n (scale c x) = c * norm n x.
Proof.
  intros Hc. unfold norm. rewrite dot_scale_scale, sqrt_mult_alt by nra.
  now rewrite sqrt_square.
Qed.

Theorem cauchy_schwarz n x y : Rabs (dot n x y) <= norm n x * norm n y.
Proof.
  assert (H : dot n x y * dot n x y <= dot n x x * dot n y y).
  { pose proof (dot_nonneg n x). pose proof (dot_nonneg n y).
    assert (Q : forall s t, 0 <= s * s * dot n x x - 2 * (s * t) * dot n x y + t * t * dot n y y).
    { intros s t. pose proof (dot_nonneg n (sub (scale s x) (scale t y))) as P.
      rewrite dot_sub_sub, !dot_scale_scale, dot_scale, (dot_sym n (scale s x)), dot_scale,
        (dot_sym n y) in P. lra. }
    pose proof (Q (dot n y y) (dot n x y)). pose proof (Q (dot n x y) (dot n x x)).
    pose proof (Q 1 (dot n x y)).
    destruct (Req_dec (dot n y y) 0) as [Y|]; [destruct (Req_dec (dot n x x) 0) as [X|]|].
    - rewrite X, Y in *. nra.
    - apply Rmult_le_reg_l with (dot n x x); nra.
    - apply Rmult_le_reg_l with (dot n y y); nra. }
  unfold norm. rewrite <- sqrt_mult_alt by apply dot_nonneg.
  rewrite <- sqrt_Rsqr_abs. apply sqrt_le_1_alt. exact H.
Qed.

Lemma dot_le n x y : dot n x y <= norm n x * norm n y.
Proof. pose proof (cauchy_schwarz n x y). pose proof (Rle_abs (dot n x y)). lra. Qed.

Lemma triangle n x y : norm n (add x y) <= norm n x + norm n y.
Proof.
  pose proof (norm_nonneg n x). pose proof (norm_nonneg n y). apply norm_le; [lra|].
  rewrite dot_add_add, <- !norm_square. pose proof (dot_le n x y). nra.
Qed.

Lemma triangle_sub n x y : norm n (sub x y) <= norm n x + norm n y.
Proof.
  pose proof (norm_nonneg n x). pose proof (norm_nonneg n y). apply norm_le; [lra|].
  rewrite dot_sub_sub, <- !norm_square. pose proof (cauchy_schwarz n x y).
  pose proof (Rle_abs (- dot n x y)) as G. rewrite Rabs_Ropp in G. nra.
Qed.

Lemma norm_sym n x y : norm n (sub x y) = norm n (sub y x).
Proof. unfold norm. f_equal. apply sum_ext. unfold sub. intros. nra. Qed.

(** * Matrices *)

(** [mul n A x] is A x for a matrix A of n columns. *)
Definition mul (n : nat) (A : mat) (x : vec) : vec := fun i => dot n (A i) x.
Definition trans (A : mat) : mat := fun i j => A j i.
Definition madd (A B : mat) : mat := fun i j => A i j + B i j.

(** The Frobenius norm of a matrix of m rows and n columns. *)
Definition frobenius (m n : nat) (A : mat) : R := sqrt (sum m (fun i => dot n (A i) (A i))).

(** A^T A for a matrix A of m rows; [gram k (trans L)] is L L^T. *)
Definition gram (m : nat) (A : mat) : mat := fun i j => sum m (fun k => A k i * A k j).

Lemma mul_add n A x y i : mul n A (add x y) i = mul n A x i + mul n A y i.
Proof. apply dot_add. Qed.

Lemma mul_sub n A x y i : mul n A (sub x y) i = mul n A x i - mul n A y i.
Proof. apply dot_sub. Qed.

Lemma mul_scale n A c x i : mul n A (scale c x) i = c * mul n A x i.
Proof. apply dot_scale. Qed.

Lemma mul_ident n x i : (i < n)%nat -> mul n ident x i = x i.
Proof. apply sum_ident. Qed.

Lemma mul_trans m n A x y : dot m (mul n A x) y = dot n x (mul m (trans A) y).
Proof.
  unfold mul, trans, dot at 1 3.
  rewrite (sum_ext m _ (fun i => sum n (fun j => A i j * x j * y i))).
  - rewrite sum_swap. apply sum_ext. intros j _. unfold dot. rewrite <- sum_scale.
    apply sum_ext. intros. lra.
  - intros i _. rewrite Rmult_comm. unfold dot. rewrite <- sum_scale.
    apply sum_ext. intros. lra.
Qed.

Lemma frobenius_nonneg m n A : 0 <= frobenius m n A.
Proof. apply sqrt_pos. Qed.

Lemma frobenius_square m n A :
  frobenius m n A * frobenius m n A = sum m (fun i => dot n (A i) (A i)).
Proof. apply sqrt_sqrt, sum_nonneg. intros. apply dot_nonneg. Qed.

Lemma row_le m n A i : (i < m)%nat -> norm n (A i) <= frobenius m n A.
Proof.
  intros Hi. apply norm_le; [apply frobenius_nonneg|]. rewrite frobenius_square.
  apply (sum_one m i (fun k => dot n (A k) (A k)) Hi). intros. apply dot_nonneg.
Qed.

Theorem frobenius_bound m n A x : norm m (mul n A x) <= frobenius m n A * norm n x.
Proof.
  pose proof (frobenius_nonneg m n A). pose proof (norm_nonneg n x).
  apply norm_le; [nra|].
  apply Rle_trans with (sum m (fun i => dot n x x * dot n (A i) (A i))).
  - apply sum_le. intros i _. rewrite <- !norm_square. unfold mul.
    pose proof (cauchy_schwarz n (A i) x). pose proof (norm_nonneg n (A i)).
    destruct (Rabs_def2 (dot n (A i) x) (norm n (A i) * norm n x + 1)); [lra|].
    pose proof (Rle_abs (dot n (A i) x)). pose proof (Rle_abs (- dot n (A i) x)) as G.
    rewrite Rabs_Ropp in G. nra.
  - rewrite sum_scale, <- frobenius_square, <- norm_square. nra.
Qed.

(** x^T M x. *)
Definition form (n : nat) (M : mat) (x : vec) : R := dot n x (mul n M x).

Lemma form_gram m n A x : form n (gram m A) x = dot m (mul n A x) (mul n A x).
Proof.
  rewrite mul_trans. apply dot_ext; [reflexivity|]. intros i _. unfold mul, trans, gram, dot.
  rewrite (sum_ext n _ (fun j => sum m (fun k => A k i * A k j * x j))).
  - rewrite sum_swap. apply sum_ext. intros k _. rewrite <- sum_scale.
    apply sum_ext. intros. lra.
  - intros j _. rewrite Rmult_comm, <- sum_scale. apply sum_ext. intros. lra.
Qed.

Lemma form_le n M x : Rabs (form n M x) <= frobenius n n M * dot n x x.
Proof.
  pose proof (cauchy_schwarz n x (mul n M x)). pose proof (frobenius_bound n n M x).
  pose proof (norm_nonneg n x). unfold form. rewrite <- norm_square. nra.
Qed.
