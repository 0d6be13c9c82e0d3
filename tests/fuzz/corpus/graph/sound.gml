graph [
  node [ id 0 label "a" host_bandwidth_up "1 Gbit" host_bandwidth_down "1 Gbit" ]
  node [ id 1 label "b" host_bandwidth_up "1 Gbit" host_bandwidth_down "1 Gbit" ]
  edge [ source 0 target 1 bandwidth "1 Gbit" latency "10 ms" ]
]
