(** What VALID means for a network of matrices: its constant, and its radii.

    A Lemma is a step on the way; the Theorems of all files are listed at the end, with what they
    assume. *)

From Coq Require Import Reals Lra Lia Psatz List.
From Onelip Require Import Vectors Norms Maps Groups Kernel Network.
Local Open Scope R_scope.

Lemma shown_norm m n A c : shown m n A c -> bounded m n A c.
Proof.
  induction 1 as [m n G E u e c Hu HE Hc HG | m n k G E L R t rho u e c | m n A B c E H IH
    | m n A c Hc H IH | |].
  - intros x. assert (S : bounded m n (fun i j => u * G i j) (c - e)).
    { replace (c - e) with (u * ((c - e) / u)) by (field; lra).
      apply scaled_norm; [lra|]. apply frobenius_norm, Rsqr_incr_0_var; [exact HG|].
      apply Rle_mult_inv_pos; lra. }
    pose proof (grid_norm m n _ E _ S x). pose proof (norm_nonneg n x). nra.
  - eapply claimed_norm; eassumption.
  - intros x. rewrite <- (norm_ext m (mul n A x)); [apply IH|].
    intros i Hi. apply dot_ext; [intros; now apply E|reflexivity].
  - now apply (transposed_norm n m (trans A) c).
  - now apply diagonal_norm.
  - now apply taken_norm.
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

Lemma activation_constant n act m : checked_activation n act m ->
  0 <= Rmax (highest act) (- lowest act) /\
  lipschitz n m (activate act) (Rmax (highest act) (- lowest act)).
Proof.
  destruct act as [below low high|pairs|windows w p c]; simpl; intros H.
  - destruct H as [<- [H1 H]]. split.
    + pose proof (Rmax_l high (- low)). lra.
    + apply elementwise_lipschitz. intros i Hi. apply leaky_slopes; auto.
  - destruct H as [<- H]. rewrite Rmax_left by lra. split; [lra|]. now apply exchanges_lipschitz.
  - destruct H as [<- [Hc [Hw Hs]]]. rewrite Rmax_left by lra. split; [lra|].
    now apply maxima_lipschitz.
Qed.

Lemma block_constant n B m : checked_block n B m ->
  0 <= bound_of B /\ lipschitz n m (run_block B) (bound_of B).
Proof.
  destruct B as [inner act outer skip bound|f act h bound]; simpl.
  - intros [k [l [I [A [O H]]]]].
    destruct (maps_constant _ _ _ I) as [Hi FI]. destruct (maps_constant _ _ _ O) as [Ho FO].
    destruct (activation_constant _ _ _ A) as [Ha FA].
    set (a := Rmax _ _) in *.
    assert (P : 0 <= norms inner * a * norms outer) by (repeat apply Rmult_le_pos; auto).
    assert (F : lipschitz n m (fun x => images outer (activate act (images inner x)))
      (norms inner * a * norms outer)).
    { replace (_ * _ * _) with (norms outer * (a * norms inner)) by ring.
      apply (composition_lipschitz n l m (fun x => activate act (images inner x))); auto.
      now apply (composition_lipschitz n k l). }
    destruct skip as [maps|].
    + destruct H as [S H]. destruct (maps_constant _ _ _ S) as [Hs FS]. split; [lra|].
      apply larger_lipschitz with (2 := H). now apply sum_lipschitz.
    + split; [lra|]. now apply larger_lipschitz with (2 := H).
  - intros [<- [[Hn [Hc [S _]]] [A [Hh H]]]]. subst n.
    split; [pose proof (Rle_trans _ _ _ (Rmax_l _ _) H); lra|].
    apply larger_lipschitz with (2 := H). pose proof (shown_norm _ _ _ _ S) as HW.
    pose proof (activation_constant _ _ _ A) as [_ FA].
    destruct act as [below low high|pairs|windows w p c]; simpl in *.
    + destruct A as [_ [? ?]]. apply step_lipschitz; auto. intros i Hi. apply leaky_slopes; auto.
    + rewrite Rmax_left in FA by lra. apply step_any; auto; lra.
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
    rewrite norm_scale in A by lra.
    rewrite (norm_ext _ _ (sub (matrix M y) (matrix M j))) in A
      by (intros; unfold sub, madd; now rewrite !HG by assumption).
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
   transposed_norm, scaled_norm, grid_norm, claimed_norm, form_nonnegative, diagonal_norm,
   taken_norm, exchanges_permute, bubble_places, bubble_sorts, maxima_lipschitz,
   identity_lipschitz, affine_lipschitz, composition_lipschitz, sum_lipschitz, larger_lipschitz,
   block_lipschitz, elementwise_lipschitz, leaky_slopes, relu_lipschitz, exchange_lipschitz,
   exchanges_lipschitz, step_lipschitz, step_one, step_any, image_error, block_error,
   network_pair, matrix_pair, rows_apart, rival, radius, sample, multipliers_lipschitz,
   valid_constant, valid_sample).

Print Assumptions theorems.
