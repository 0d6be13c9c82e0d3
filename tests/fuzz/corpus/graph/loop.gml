graph [ node [ id 0 label "a" ] edge [ source 0 target 0 ] edge [ source 0 target 7 ] ]
