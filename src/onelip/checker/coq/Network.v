(** What VALID means for a network of matrices, all in one: [checked] and [checked_sample] are the
    comparisons of numbers that check.py makes, and the theorems say what follows from them. That
    computed values are within e is taken as given here; [image_error] and [block_error] add it up.

    A Lemma is a step on the way; Theorems are listed at the end, with what they assume. *)

From Coq Require Import Reals Lra Lia Psatz List.
From Onelip Require Import Vectors Norms Maps Kernel.
Local Open Scope R_scope.

(** * Networks *)

(** x -> A x + b, and the claim of a norm. *)
Record linear := Linear { rows : nat; columns : nat; matrix : mat; shift : vec; claim : R }.

(** Slopes below 0, between two numbers; or entries that are put in order, two by two. *)
Inductive activation :=
| Leaky (below : vec) (low high : R)
| Exchanges (pairs : list (nat * nat)).

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

(** A norm, by the Frobenius norm or by a factor, of the matrix or of its transpose. *)
Inductive shown : nat -> nat -> mat -> R -> Prop :=
| by_frobenius m n (G E : mat) u e c :
    0 < u -> frobenius m n E <= e -> e <= c ->
    frobenius m n G * frobenius m n G <= ((c - e) / u) * ((c - e) / u) ->
    shown m n (madd (fun i j => u * G i j) E) c
| by_factor m n k (G E L R : mat) t rho u e c :
    residual m n k G L t R -> frobenius n n R <= rho -> 0 < u -> frobenius m n E <= e ->
    e <= c -> t + rho <= ((c - e) / u) * ((c - e) / u) ->
    shown m n (madd (fun i j => u * G i j) E) c
| by_transpose m n A c : 0 <= c -> shown n m (trans A) c -> shown m n A c.

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

Definition checked_activation (n : nat) (act : activation) : Prop :=
  match act with
  | Leaky below low high =>
      low <= 1 <= high /\ forall i, (i < n)%nat -> low <= below i <= high
  | Exchanges pairs =>
      forall i j, In (i, j) pairs -> (i < n)%nat /\ (j < n)%nat /\ i <> j
  end.

Definition lowest (act : activation) : R := match act with Leaky _ a _ => a | _ => - (1) end.
Definition highest (act : activation) : R := match act with Leaky _ _ b => b | _ => 1 end.

Definition bound_of (B : block) : R := match B with Plain _ _ _ _ b => b | Step _ _ _ b => b end.

Definition checked_block (n : nat) (B : block) (m : nat) : Prop :=
  match B with
  | Plain inner act outer skip bound => exists k,
      checked_maps n inner k /\ checked_activation k act /\ checked_maps k outer m /\
      let least := norms inner * Rmax (highest act) (- lowest act) * norms outer in
      match skip with
      | None => least <= bound
      | Some maps => checked_maps n maps m /\ least + norms maps <= bound
      end
  | Step f act h bound =>
      n = m /\ checked_maps n (f :: nil) (rows f) /\ checked_activation (rows f) act /\ 0 <= h /\
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
    matrix W = madd (fun i l => u * G i l) E -> 0 < u -> frobenius (rows W) (columns W) E <= e ->
    bounds (blocks N) * norms before * (u * norm (columns W) (sub (G y) (G j)) + 2 * e) <= K ->
    checked_pair N y j K.

Definition checked_sample (N : network) (m : nat) (x v : vec) (e : R) (y : nat) (r : R) : Prop :=
  (y < m)%nat /\ norm m (sub v (run N x)) <= e /\
  forall j, (j < m)%nat -> j <> y ->
    r = 0 \/ exists K, checked_pair N y j K /\ r * K < v y - v j - sqrt 2 * e.

(** * What follows *)

Lemma shown_norm m n A c : shown m n A c -> bounded m n A c.
Proof.
  induction 1 as [m n G E u e c Hu HE Hc HG | m n k G E L R t rho u e c | m n A c Hc H IH].
  - intros x. assert (S : bounded m n (fun i j => u * G i j) (c - e)).
    { replace (c - e) with (u * ((c - e) / u)) by (field; lra).
      apply scaled_norm; [lra|]. apply frobenius_norm, Rsqr_incr_0_var; [exact HG|].
      apply Rle_mult_inv_pos; lra. }
    pose proof (grid_norm m n _ E _ S x). pose proof (norm_nonneg n x). nra.
  - eapply claimed_norm; eassumption.
  - now apply (transposed_norm n m (trans A) c).
Qed.

Lemma image_constant n f m rest : checked_maps n (f :: rest) m ->
  lipschitz n (rows f) (image f) (claim f).
Proof.
  intros [<- [_ [S _]]]. apply affine_lipschitz. now apply shown_norm.
Qed.

Lemma maps_constant fs : forall n m, checked_maps n fs m ->
  0 <= norms fs /\ lipschitz n m (images fs) (norms fs).
Proof.
  induction fs as [|f rest IH]; intros n m H.
  - simpl in *. subst. split; [lra|apply identity_lipschitz].
  - pose proof (image_constant _ _ _ _ H) as F. destruct H as [_ [Hc [_ H]]].
    destruct (IH _ _ H) as [Hn G]. simpl. split; [nra|]. rewrite Rmult_comm.
    now apply (composition_lipschitz n (rows f) m (image f) (images rest)).
Qed.

Lemma activation_constant n act : checked_activation n act ->
  0 <= Rmax (highest act) (- lowest act) /\
  lipschitz n n (activate act) (Rmax (highest act) (- lowest act)).
Proof.
  destruct act as [below low high|pairs]; simpl; intros H.
  - destruct H as [H1 H]. split.
    + pose proof (Rmax_l high (- low)). lra.
    + apply elementwise_lipschitz. intros i Hi. apply leaky_slopes; auto.
  - rewrite Rmax_left by lra. split; [lra|]. now apply exchanges_lipschitz.
Qed.

Lemma block_constant n B m : checked_block n B m ->
  0 <= bound_of B /\ lipschitz n m (run_block B) (bound_of B).
Proof.
  destruct B as [inner act outer skip bound|f act h bound]; simpl.
  - intros [k [I [A [O H]]]].
    destruct (maps_constant _ _ _ I) as [Hi FI]. destruct (maps_constant _ _ _ O) as [Ho FO].
    destruct (activation_constant _ _ A) as [Ha FA].
    set (a := Rmax _ _) in *.
    assert (P : 0 <= norms inner * a * norms outer) by (repeat apply Rmult_le_pos; auto).
    assert (F : lipschitz n m (fun x => images outer (activate act (images inner x)))
      (norms inner * a * norms outer)).
    { replace (_ * _ * _) with (norms outer * (a * norms inner)) by ring.
      apply (composition_lipschitz n k m (fun x => activate act (images inner x))); auto.
      now apply (composition_lipschitz n k k). }
    destruct skip as [maps|].
    + destruct H as [S H]. destruct (maps_constant _ _ _ S) as [Hs FS]. split; [lra|].
      apply larger_lipschitz with (2 := H). now apply sum_lipschitz.
    + split; [lra|]. now apply larger_lipschitz with (2 := H).
  - intros [<- [[Hn [Hc [S _]]] [A [Hh H]]]]. subst n.
    split; [pose proof (Rle_trans _ _ _ (Rmax_l _ _) H); lra|].
    apply larger_lipschitz with (2 := H). pose proof (shown_norm _ _ _ _ S) as HW.
    pose proof (activation_constant _ _ A) as [_ FA].
    destruct act as [below low high|pairs]; simpl in *.
    + apply step_lipschitz; auto. intros i Hi. destruct A. apply leaky_slopes; auto.
    + rewrite Rmax_left in FA by lra. apply step_any; auto; lra.
Qed.

Lemma blocks_constant Bs : forall n m, checked_blocks n Bs m ->
  0 <= bounds Bs /\ lipschitz n m (run_blocks Bs) (bounds Bs).
Proof.
  induction Bs as [|B rest IH]; simpl; intros n m H.
  - subst. split; [lra|apply identity_lipschitz].
  - destruct H as [k [HB H]]. destruct (block_constant _ _ _ HB) as [Hb F].
    destruct (IH _ _ H) as [Hr G]. split; [nra|]. rewrite Rmult_comm.
    now apply (composition_lipschitz n k m (run_block B) (run_blocks rest)).
Qed.

(** VALID, first half: the claim is a Lipschitz constant of the network. *)
Theorem valid_constant n N m L : checked n N m L -> lipschitz n m (run N) L.
Proof.
  intros [k [HB [HL H]]]. apply larger_lipschitz with (2 := H).
  destruct (blocks_constant _ _ _ HB) as [Hb F]. destruct (maps_constant _ _ _ HL) as [Hl G].
  rewrite Rmult_comm.
  now apply (composition_lipschitz n k m (run_blocks (blocks N)) (images (last N))).
Qed.

Lemma images_app fs gs x : images (fs ++ gs) x = images gs (images fs x).
Proof. revert x. induction fs; simpl; auto. Qed.

Lemma checked_app fs gs : forall n m, checked_maps n (fs ++ gs) m ->
  exists k, checked_maps n fs k /\ checked_maps k gs m.
Proof.
  induction fs as [|f fs IH]; simpl; intros n m H; [eauto|].
  destruct H as [? [? [? H]]]. destruct (IH _ _ H) as [k [? ?]]. exists k. auto.
Qed.

Lemma pair_constant n N m L y j K : checked n N m L -> (y < m)%nat -> (j < m)%nat -> j <> y ->
  checked_pair N y j K -> 0 <= K /\ difference n (run N) y j K.
Proof.
  intros [k [HB [HL _]]] Hy Hj D P. destruct (blocks_constant _ _ _ HB) as [Hb F].
  assert (W : forall c d, c <= d -> difference n (run N) y j c -> difference n (run N) y j d).
  { intros c d Hcd Q x x'. pose proof (Q x x'). pose proof (norm_nonneg n (sub x x')). nra. }
  destruct P as [HK|before M G E u e HM HG Hu HE HK].
  - destruct (maps_constant _ _ _ HL) as [Hl G]. pose proof (sqrt_pos 2).
    assert (0 <= bounds (blocks N) * norms (last N)) by nra. split; [nra|].
    apply (W _ _ HK). apply (network_pair n m); auto. rewrite Rmult_comm.
    now apply (composition_lipschitz n k m (run_blocks (blocks N)) (images (last N))).
  - rewrite HM in HL. destruct (checked_app _ _ _ _ HL) as [h [H1 H2]].
    destruct (maps_constant _ _ _ H1) as [Hl B]. destruct H2 as [Hh [_ [_ Hm]]].
    simpl in Hm. rewrite <- Hm in Hy, Hj.
    pose proof (rows_apart (rows M) (columns M) (fun i l => u * G i l) E y j Hy Hj) as A.
    rewrite (norm_ext _ (sub (fun l => u * G y l) _) (scale u (sub (G y) (G j)))) in A
      by (intros; unfold sub, scale; ring).
    rewrite <- HG, norm_scale in A by lra.
    pose proof (norm_nonneg (columns M) (sub (matrix M y) (matrix M j))).
    assert (0 <= bounds (blocks N) * norms before) by nra. split; [nra|].
    apply (W (bounds (blocks N) * norms before * norm (columns M) (sub (matrix M y) (matrix M j))));
      [nra|].
    intros x x'. unfold run. rewrite HM, !images_app.
    apply (matrix_pair n (columns M) (fun z => images before (run_blocks (blocks N) z))).
    rewrite Hh, Rmult_comm.
    now apply (composition_lipschitz n k h (run_blocks (blocks N)) (images before)).
Qed.

(** VALID, second half: within the radius, the predicted output is larger than every other. *)
Theorem valid_sample n N m L x v e y r : checked n N m L -> checked_sample N m x v e y r ->
  0 < r -> forall x', norm n (sub x' x) <= r ->
  forall j, (j < m)%nat -> j <> y -> run N x' j < run N x' y.
Proof.
  intros HN [Hy [He H]] Hr x' Hx j Hj D.
  destruct (H j Hj D) as [|[K [HK M]]]; [lra|].
  destruct (pair_constant _ _ _ _ _ _ _ HN Hy Hj D HK) as [P Q].
  now apply (rival n m (run N) K x v e r y j).
Qed.

(** * What all of it assumes: the axioms of the real numbers in Coq *)

Definition theorems :=
  (cauchy_schwarz, frobenius_bound, residual_square, residual_norm, frobenius_norm,
   transposed_norm, scaled_norm, grid_norm, claimed_norm, form_nonnegative, identity_lipschitz,
   affine_lipschitz, composition_lipschitz, sum_lipschitz, larger_lipschitz, block_lipschitz,
   elementwise_lipschitz, leaky_slopes, relu_lipschitz, exchange_lipschitz, exchanges_lipschitz,
   step_lipschitz, step_one, step_any, image_error, block_error, network_pair, matrix_pair,
   rows_apart, rival, radius, sample, multipliers_lipschitz, valid_constant, valid_sample).

Print Assumptions theorems.
