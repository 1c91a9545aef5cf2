(** Numbers for which the hypotheses hold: no theorem is about nothing. *)

From Coq Require Import Reals Lra Lia List.
From Onelip Require Import Vectors Norms Maps Groups Kernel Network Valid.
Local Open Scope R_scope.

(* the matrix (2 + 1), 2 on the grid, with t = 4 and no factor: 3 is shown, the true norm *)
Example three : shown 1 1 (madd (fun _ _ => 1 * 2) (fun _ _ => 1)) 3.
Proof.
  assert (Z : forall a, frobenius 1 1 (fun _ _ => a) = Rabs a).
  { intros a. unfold frobenius, dot. simpl. replace (0 + (0 + a * a)) with (Rsqr a).
    apply sqrt_Rsqr_abs. unfold Rsqr. ring. }
  apply (by_factor 1 1 0 (fun _ _ => 2) (fun _ _ => 1) (fun _ _ => 0) (fun _ _ => 0) 4 0 1 1);
    rewrite ?Z, ?Rabs_R0, ?Rabs_R1; try lra.
  intros i j Hi Hj. replace i with O by lia. replace j with O by lia.
  unfold ident, gram. simpl. lra.
Qed.

(* ReLU, half a step, the identity: at (3, 1) the values are 3/2 and 1/2 *)
Definition id2 := Linear 2 2 (madd (fun i j => 1 * ident i j) (fun _ _ => 0)) (fun _ => 0) 1.
Definition relu := Leaky (fun _ => 0) 0 1.
Definition small :=
  Network (Plain nil relu nil None 1 :: Step id2 relu (1 / 2) 1 :: nil) (id2 :: nil).
Definition pick (a b : R) : vec := fun i => match i with O => a | _ => b end.

Lemma shown_id2 : shown 2 2 (matrix id2) 1.
Proof.
  assert (Z : frobenius 2 2 (fun _ _ => 0) = 0).
  { unfold frobenius, dot. simpl. transitivity (sqrt 0); [f_equal; ring|apply sqrt_0]. }
  apply (by_factor 2 2 0 ident (fun _ _ => 0) (fun _ _ => 0) (fun _ _ => 0) 1 0 1 0);
    rewrite ?Z; try lra.
  intros [|[|i]] [|[|j]] Hi Hj; try lia; unfold ident, gram; simpl; lra.
Qed.

Lemma small_checked : checked 2 small 2 1.
Proof.
  assert (M : checked_maps 2 (id2 :: nil) 2) by (simpl; auto using shown_id2, Rle_0_1).
  exists 2%nat. simpl. split; [|split; [exact M|lra]].
  exists 2%nat. split.
  - exists 2%nat, 2%nat. repeat split; try lra. rewrite Rmax_left; lra.
  - exists 2%nat. repeat split; auto using shown_id2; try lra.
    rewrite Rmin_left by lra. repeat apply Rmax_lub; lra.
Qed.

Example safe : forall x, norm 2 (sub x (pick 3 1)) <= 1 / 2 -> run small x 1%nat < run small x O.
Proof.
  assert (S : checked_sample small 2 (pick 3 1) (pick (3 / 2) (1 / 2)) (1 / 10) 0 (1 / 2)).
  { split; [lia|]. split.
    - assert (V : forall i, (i < 2)%nat -> run small (pick 3 1) i = pick (3 / 2) (1 / 2) i).
      { intros [|[|i]] Hi; try lia.
        all: cbv -[Rplus Rmult Rminus Ropp Rmax Rmin Rdiv Rinv IZR].
        all: rewrite (Rmax_left 3 0), (Rmin_right 3 0), (Rmax_left 1 0), (Rmin_right 1 0) by lra.
        all: rewrite !Rmax_left, !Rmin_right by lra; lra. }
      replace (norm _ _) with 0; [lra|]. transitivity (sqrt 0); [now rewrite sqrt_0|].
      unfold norm, dot, sub. simpl sum. rewrite !V by lia. simpl. f_equal. ring.
    - assert (sqrt 2 < 3 / 2)
        by (rewrite <- (sqrt_square (3 / 2)) by lra; apply sqrt_lt_1; lra).
      intros [|[|j]] Hj N; try lia. right. exists (sqrt 2). split; [|simpl; lra].
      apply by_network. simpl. lra. }
  intros x Hx. apply (valid_sample 2 small 2 1 _ _ _ _ _ small_checked S); auto; lra.
Qed.
