module onelip-check

go 1.19
