module example.com/security

go 1.24

require example.com/sentinel v0.0.0

replace example.com/sentinel => ../sdk/go
